#!/usr/bin/env python3
"""The chart of where time goes says what its profile says, and its drawing is the one kept."""

import pathlib
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import plot_profile  # noqa: E402

PROFILE = """\
# tiny, C = 4, a prompt of 9 tokens; a machine
prefill.decoder products=0.006 s
prefill.decoder products.floor=0.003 s
prefill.rest=0.002 s
prefill.rest.floor=0 s
prefill.total=0.008 s
prefill.total.median=0.007 s
prefill.total.high=0.009 s
decode.attention=0.001 s
decode.attention.floor=0.001 s
decode.total=0.001 s
decode.total.median=0.001 s
decode.total.high=0.001 s
"""


class Profile(unittest.TestCase):
    def test_the_floor_of_the_whole_is_the_sum(self):
        heading, phases = plot_profile.parse(PROFILE)
        self.assertEqual(heading, "tiny, C = 4, a prompt of 9 tokens; a machine")
        self.assertEqual(phases["prefill"]["total"], (0.008, 0.003))
        self.assertEqual(phases["decode"], {"attention": (0.001, 0.001), "total": (0.001, 0.001)})

    def test_each_part_has_its_share(self):
        page = plot_profile.draw(PROFILE).svg()
        for words in ("the whole prefill: 8 ms, floor 3 ms (38%)", "6 ms, 75%", "2 ms, 25%",
                      "one decode step: 1 ms, floor 1 ms (100%)"):
            self.assertIn(words, page)

    def test_a_line_that_is_no_figure_is_shown(self):
        with self.assertRaisesRegex(ValueError, "prefill.attention=fast"):
            plot_profile.parse(PROFILE + "prefill.attention=fast\n")

    def test_the_image_kept_is_of_the_profile_kept(self):
        page = plot_profile.draw(plot_profile.PROFILE.read_text(encoding="utf-8"))
        self.assertEqual(plot_profile.IMAGE.read_text(encoding="utf-8"), page.svg(),
                         "make it anew: tools/plot_profile.py")


if __name__ == "__main__":
    unittest.main()
