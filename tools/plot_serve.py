#!/usr/bin/env python3
"""Charts of bench/results/serve as SVG, readable in light and in dark, without any dependency.

    tools/plot_serve.py [RESULTS_DIR [IMAGES_DIR]]

Writes serve_throughput.svg and serve_goodput.svg (load_curve), serve_memory_bound.svg and
serve_capacity.svg; leaves out those whose results are not there.
"""

import json
import math
import pathlib
import sys

from svg_drawing import (BOTTOM, COLOURS, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Drawing, nice_step,
                         number)

ROOT = pathlib.Path(__file__).resolve().parents[1]


class Chart(Drawing):
    """One plot with its axes; y starts at 0."""

    def __init__(self, title, subtitle, y_label, y_top):
        super().__init__(title, subtitle)
        self.step = nice_step(y_top)
        self.y_top = self.step * math.ceil(y_top / self.step * 1.0001) or 1
        for i in range(round(self.y_top / self.step) + 1):
            y = self.y(i * self.step)
            self.line(LEFT, y, WIDTH - RIGHT, y, "axis" if i == 0 else "grid")
            self.text(LEFT - 8, y + 4, number(i * self.step), "tick", "end")
        self.upright(16, (TOP + HEIGHT - BOTTOM) / 2, y_label)

    def y(self, value):
        return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * value / self.y_top

    def bar(self, x, width, value, colour):
        y = self.y(value)
        self.parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" '
                          f'height="{HEIGHT - BOTTOM - y:.1f}" rx="2" fill="{colour}"/>')


def budget_name(budget):
    return {"dense": "dense", "auto8-32": "auto 8–32"}.get(budget, f"C = {budget}")


def shapes_of(curves):
    cat = next(c["model"] for c in curves if c["budget"] != "dense")
    dense = next((c["model"] for c in curves if c["budget"] == "dense"), None)
    return f"{cat}" + (f" and its dense twin {dense}" if dense else "")


def machine_line(record):
    machine = record["machine"]
    return f"{machine['cpu']}, {machine['cores']} cores, random weights, commit {record['commit']}"


def curve_chart(record, key, title, y_label):
    """One line for each budget, over offered load in multiples of the capacity at C = 8."""
    details = record["details"]
    curves = details["curves"]
    top = max(p[key] for c in curves for p in c["points"])
    chart = Chart(f"{title}: {shapes_of(curves)}", machine_line(record), y_label, top)
    right = max(p["load"] for c in curves for p in c["points"])

    def x(load):
        return LEFT + (WIDTH - RIGHT - LEFT - 16) * load / right
    for i in range(round(right / 0.5) + 1):
        chart.line(x(i / 2), HEIGHT - BOTTOM, x(i / 2), HEIGHT - BOTTOM + 4, "axis")
        chart.text(x(i / 2), HEIGHT - BOTTOM + 18, f"{i / 2:g}x", "tick", "middle")
    chart.text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 14,
               f"offered load, in multiples of the capacity at C = 8 "
               f"({details['capacity']:.2f} requests/s)", "tick", "middle")
    entries = []
    for colour, curve in zip(COLOURS, curves):
        dashed = curve["budget"] == "dense"
        chart.curve([(x(p["load"]), chart.y(p[key])) for p in curve["points"]], colour, dashed)
        entries.append((budget_name(curve["budget"]), colour, dashed))
    chart.legend(entries)
    return chart


def bars_chart(chart, bars):
    """`bars`: (label, value, colour, low, high, mark); a mark is a line across the bar."""
    slot = (WIDTH - RIGHT - LEFT) / len(bars)
    for i, (label, value, colour, low, high, mark) in enumerate(bars):
        x, width = LEFT + slot * (i + 0.2), slot * 0.6
        chart.bar(x, width, value, colour)
        if high > low:
            for end in (low, high):
                chart.line(x + width / 2 - 6, chart.y(end), x + width / 2 + 6, chart.y(end), "mark")
            chart.line(x + width / 2, chart.y(low), x + width / 2, chart.y(high), "mark")
        if mark is not None:
            chart.line(x - 6, chart.y(mark), x + width + 6, chart.y(mark), "mark",
                       'stroke-width="2" stroke-dasharray="4 3"')
        chart.text(x + width / 2, chart.y(max(value, high, mark or 0)) - 7, number(value), "",
                   "middle")
        chart.text(x + width / 2, HEIGHT - BOTTOM + 20, label, "", "middle")
    return chart


def capacity_chart(record):
    rows = record["details"]["rows"]
    cat, dense = rows[1]["model"], rows[0]["model"]
    top = max(max(r["live"], r["formula"]) for r in rows)
    mib = record["details"]["kv_memory_bytes"] / 2**20
    chart = Chart(f"Sequences of 2,048 tokens alive at once: {cat} beside {dense}",
                  machine_line(record), f"sequences in {mib:,.0f} MiB of KV memory", top * 1.08)
    chart.text(LEFT, 67, "bars: counted from live sequences · dashes: by n/C + C + 1 entries, "
               "in pages", "tick")
    return bars_chart(chart, [
        ("dense twin" if r["chunk_size"] == 0 else f"C = {r['chunk_size']}", r["live"],
         COLOURS[0] if r["chunk_size"] else COLOURS[1], r["live"], r["live"], r["formula"])
        for r in rows])


def goodput_bars(record):
    """Goodput at twice the capacity, the median of the runs with their range."""
    runs = record["details"]["runs"]
    names = {"8": "C = 8", "32": "C = 32", "auto8-32": "auto 8–32"}
    values = {b: sorted(run[b]["good_per_second"] for run in runs) for b in names}
    model = record["figures"][0]["name"].split(".")[1]
    chart = Chart(f"Goodput at twice the capacity of C = 8: {model}", machine_line(record),
                  "good requests/s", max(v[-1] for v in values.values()) * 1.1 or 1)
    chart.text(LEFT, 67, "the pool holds four full sequences at C = 8; good: first token within "
               "2 s, p99 gap within 150 ms", "tick")
    return bars_chart(chart, [(names[b], v[len(v) // 2], colour, v[0], v[-1], None)
                              for colour, (b, v) in zip(COLOURS, values.items())])


def main():
    results = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "bench/results/serve")
    images = pathlib.Path(sys.argv[2] if len(sys.argv) > 2 else ROOT / "docs/images")
    charts = [
        ("load_curve", "serve_throughput", lambda r: curve_chart(
            r, "tokens_per_second", "Throughput against offered load", "generated tokens/s")),
        ("load_curve", "serve_goodput", lambda r: curve_chart(
            r, "good_per_second", "Goodput against offered load", "good requests/s")),
        ("capacity", "serve_capacity", capacity_chart),
        ("memory_bound", "serve_memory_bound", goodput_bars),
    ]
    for experiment, image, make in charts:
        path = results / f"{experiment}.json"
        if path.is_file():
            make(json.loads(path.read_text())).save(images / f"{image}.svg")
        else:
            print(f"plot_serve: {path} is not there; no {image}.svg", file=sys.stderr)


if __name__ == "__main__":
    main()
