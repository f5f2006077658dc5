#!/usr/bin/env python3
"""The reader of ptxas' report finds what it should, in reports with planted faults."""

import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))
import gpu_compile  # noqa: E402

GOOD = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z4rowsv' for 'sm_80'
ptxas info    : Function properties for _Z4rowsv
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 380 bytes cmem[0]
ptxas info    : Compiling entry function '_Z4rowsv' for 'sm_90'
ptxas info    : Function properties for _Z4rowsv
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 32 registers
"""


class Report(unittest.TestCase):
    def complaints(self, text):
        return gpu_compile.complaints(gpu_compile.parse_report(text))

    def test_a_good_report_is_read_whole(self):
        kernels = gpu_compile.parse_report(GOOD)
        self.assertEqual([(k["architecture"], k["registers"]) for k in kernels],
                         [("sm_80", 40), ("sm_90", 32)])
        self.assertEqual(self.complaints(GOOD), [])

    def test_spills_stack_and_registers_are_complained_of(self):
        for good, bad, word in (
                ("0 bytes spill stores", "24 bytes spill stores", "spills"),
                ("0 bytes spill loads", "4 bytes spill loads", "spills"),
                ("0 bytes stack frame", "16 bytes stack frame", "stack"),
                ("Used 40 registers", "Used 200 registers", "200 registers")):
            found = self.complaints(GOOD.replace(good, bad, 1))
            self.assertEqual(len(found), 1, bad)
            self.assertIn(word, found[0])

    def test_a_report_that_lacks_something_is_no_good_report(self):
        for lost in ("Used 40 registers", "bytes stack frame"):
            self.assertIn("lacks", self.complaints(GOOD.replace(lost, "", 1))[0])

    def test_the_tuned_kernel_leaves_room_for_32_warps(self):
        tuned = ("PagedAttentionDecode<TileLayout<BF16, 64, true, 16>, 1, 1>"
                 "(PagedAttentionArgs)")
        for architecture, kernel, bound in (("sm_90", tuned, 64), ("sm_80", tuned, 128),
                                            ("sm_90", "RmsNorm<float>(RmsNormArgs)", 96)):
            self.assertEqual(
                gpu_compile.register_bound({"architecture": architecture, "kernel": kernel}), bound)


if __name__ == "__main__":
    unittest.main()
