#!/usr/bin/env python3
"""What tools/bench_peer.py reads from two engines, and that they run one shape; no engine."""

import pathlib
import re
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
# pylint: disable=wrong-import-position
import bench_peer
from serve_bench import harness

PEER = '''
{"n_kv_max": 65536, "pp": 2000, "tg": 48, "pl": 1, "n_kv": 2048, "t_pp": 4.0, "speed_pp": 500.0, \
"t_tg": 0.5, "speed_tg": 96.0, "t": 4.5, "speed": 455.1}
{"n_kv_max": 65536, "pp": 2000, "tg": 48, "pl": 32, "n_kv": 65536, "t_pp": 100, "speed_pp": 640, \
"t_tg": 8.0, "speed_tg": 192.0, "t": 108, "speed": 606.8}
'''
OURS = """dense-768 on cpu avx2: 48.0 GB/s read
| dense-768.dense  |       1 |      96.2 |
dense-768.dense.prefill=623.5 tokens/s
dense-768.dense.decode.batch1=66.9 tokens/s
dense-768.dense.decode.batch1.floor_fraction=0.72 1
dense-768.dense.decode.batch32=197.25 tokens/s
"""


class Figures(unittest.TestCase):
    def test_the_peer_says_them_by_number_of_sequences(self):
        self.assertEqual(bench_peer.parse_peer(PEER),
                         {"prefill": 500.0, "alone": 96.0, "together": 192.0})

    def test_ours_are_name_value_lines(self):
        self.assertEqual(bench_peer.parse_ours(OURS),
                         {"prefill": 623.5, "alone": 66.9, "together": 197.25})

    def test_output_without_one_of_them_is_an_error(self):
        with self.assertRaisesRegex(harness.BenchError, "unexpected"):
            bench_peer.parse_peer(PEER.strip().splitlines()[0])
        with self.assertRaisesRegex(harness.BenchError, "unexpected"):
            bench_peer.parse_ours(OURS.replace("batch32", "batch8"))

    def test_a_row_has_median_and_range(self):
        runs = {"a": [bench_peer.parse_peer(PEER), bench_peer.parse_ours(OURS)]}
        self.assertIn("| a | 562 (500–624) | 81 (67–96) | 195 (192–197) |", bench_peer.table(runs))


class Shape(unittest.TestCase):
    def test_is_that_of_our_dense_model(self):
        text = (ROOT / "bench/random_checkpoint.cc").read_text()
        ours = re.search(r'\{"dense-768", (\d+), \{(\d+), (\d+), (\d+), (\d+)\}', text)
        self.assertEqual([int(n) for n in ours.groups()],
                         [bench_peer.VOCABULARY, bench_peer.WIDTH, bench_peer.LAYERS,
                          bench_peer.HEADS, bench_peer.FEED_FORWARD])

    def test_counts_as_many_weights(self):
        sizes = []
        for shape in bench_peer.tensor_shapes().values():
            sizes.append(shape[0] * shape[-1] if len(shape) == 2 else shape[0])
        self.assertEqual(len(sizes), 3 + 9 * 12)
        self.assertEqual(sum(sizes), 2 * 32000 * 768 + 768 + 12 * (4 * 768**2 + 3 * 768 * 2048
                                                                   + 2 * 768))


if __name__ == "__main__":
    unittest.main()
