#!/usr/bin/env python3
"""Recorded instruction counts are read strictly, and an operation that takes more is found."""

import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))
import instruction_counts  # noqa: E402

RECORDED = {"matmul": 100_000, "rms_norm": 2_000}


class Record(unittest.TestCase):
    def test_the_record_kept_is_whole(self):
        counts = instruction_counts.parse_record(instruction_counts.RECORD.read_text())
        self.assertIn("matmul_I8_rows_1", counts)
        lines, complaints = instruction_counts.compare(counts, counts)
        self.assertEqual((len(lines), complaints), (len(counts), []))

    def test_a_damaged_line_is_named(self):
        for damaged in ("matmul", "matmul 0", "matmul -5", "matmul 1e5", "matmul 7 8",
                        "rms_norm 3"):
            with self.assertRaisesRegex(instruction_counts.CountError, r"instructions\.txt:3"):
                instruction_counts.parse_record(f"# a comment\nrms_norm 2\n{damaged}\n")


class Compare(unittest.TestCase):
    def complaints(self, **counted):
        return instruction_counts.compare(RECORDED, RECORDED | counted)[1]

    def test_a_little_more_or_much_less_is_no_fault(self):
        self.assertEqual(self.complaints(matmul=102_900), [])
        self.assertEqual(self.complaints(matmul=50_000), [])

    def test_a_regression_is_told_with_its_size(self):
        (complaint,) = self.complaints(matmul=104_000)
        self.assertIn("matmul takes 104,000 instructions, 4.0% more", complaint)

    def test_what_was_gained_is_to_be_recorded(self):
        lines, _ = instruction_counts.compare(RECORDED, RECORDED | {"matmul": 50_000})
        self.assertIn("record it with --write", lines[0])

    def test_both_lists_name_the_same_operations(self):
        (complaint,) = self.complaints(silu_gate=1)
        self.assertIn("silu_gate is not recorded", complaint)
        (complaint,) = instruction_counts.compare(RECORDED, {"matmul": 100_000})[1]
        self.assertIn("rms_norm is recorded and no longer counted", complaint)


if __name__ == "__main__":
    unittest.main()
