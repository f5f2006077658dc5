#!/usr/bin/env python3
"""The arithmetic of tools/bench_serve.py and the charts of tools/plot_serve.py; no server."""

import pathlib
import sys
import tempfile
import unittest
import xml.etree.ElementTree as xml

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))
# pylint: disable=wrong-import-position
import plot_serve
import svg_drawing
from serve_bench import harness, memory


def call(*token_times):
    return {"token_times": list(token_times)}


class Pages(unittest.TestCase):
    def test_the_formula_counts_summaries_an_open_chunk_and_a_separator(self):
        self.assertEqual([harness.peak_pages(2048, c) for c in (0, 4, 8, 16, 32)],
                         [128, 33, 17, 10, 7])

    def test_the_last_token_drawn_takes_no_memory(self):
        # 2,047 tokens at C = 16: 127 summaries, the first one, the separator, 15 open tokens.
        self.assertEqual(harness.held_pages(2048, 16), 9)
        self.assertEqual(harness.held_pages(2048, 0), 128)
        self.assertEqual(harness.held_pages(2049, 0), 128)
        self.assertEqual(harness.held_pages(2050, 0), 129)


class Streams(unittest.TestCase):
    def test_live_together_means_between_first_and_last_token(self):
        self.assertEqual(memory.most_live([call(0, 5), call(1, 2), call(3, 9)]), 2)
        self.assertEqual(memory.most_live([call(0, 5), call(1, 6), call(2, 7)]), 3)
        self.assertEqual(memory.most_live([call(0, 1), call(1, 2)]), 1)

    def test_rates_count_only_while_all_are_live(self):
        calls = [call(0, 1, 2, 3, 4), call(2, 3, 4, 5, 6)]
        start, end = harness.live_window(calls)
        self.assertEqual((start, end), (2, 4))
        self.assertEqual(harness.tokens_within(calls, start, end), 4)

    def test_gaps_and_percentiles(self):
        self.assertEqual(harness.gaps_ms([call(0, 1, 3), call(2, 2.5)], 0, 2.5), [1000, 500])
        self.assertEqual(harness.percentile(list(range(1, 101)), 99), 99)
        self.assertEqual(harness.percentile([7], 99), 7)


class Charts(unittest.TestCase):
    RECORD = {"machine": {"cpu": "A <fast> & cheap one", "cores": 2}, "commit": "abc"}

    def elements(self, chart, tag):
        with tempfile.TemporaryDirectory() as work:
            path = pathlib.Path(work) / "chart.svg"
            path.write_text("\n".join([*chart.parts, "</svg>"]))
            return xml.parse(path).getroot().findall(f".//{{http://www.w3.org/2000/svg}}{tag}")

    def test_ticks_are_round_and_reach_the_top(self):
        self.assertEqual([svg_drawing.nice_step(t) for t in (5, 42, 0.9, 1300)], [1, 10, 0.2, 500])
        self.assertGreaterEqual(plot_serve.Chart("t", "s", "y", 42).y_top, 42)

    def test_capacity_has_a_bar_and_a_mark_for_each_row(self):
        rows = [{"model": "m", "chunk_size": c, "live": n, "formula": n - 1}
                for c, n in ((0, 4), (8, 15), (32, 42))]
        chart = plot_serve.capacity_chart(
            {**self.RECORD, "details": {"rows": rows, "kv_memory_bytes": 2**24}})
        bars = self.elements(chart, "rect")[1:]  # the first one is the page
        heights = [float(bar.get("height")) for bar in bars]
        self.assertEqual(heights, sorted(heights))
        self.assertAlmostEqual(heights[2] / heights[0], 42 / 4, places=1)
        marks = [line for line in self.elements(chart, "line") if line.get("stroke-dasharray")]
        self.assertEqual(len(marks), 3)

    def test_a_curve_has_a_point_for_each_load(self):
        points = [{"load": load, "good_per_second": load} for load in (0.5, 1.0, 2.0)]
        curves = [{"model": "m", "budget": b, "points": points} for b in ("8", "dense")]
        chart = plot_serve.curve_chart(
            {**self.RECORD, "details": {"curves": curves, "capacity": 1.5}}, "good_per_second",
            "Goodput", "good requests/s")
        self.assertEqual(len(self.elements(chart, "polyline")), 2)
        self.assertEqual(len(self.elements(chart, "circle")), 6)


if __name__ == "__main__":
    unittest.main()
