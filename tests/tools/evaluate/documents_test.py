#!/usr/bin/env python3
"""Cards, documents and charts say the same: nobody edits a figure by hand."""

import json
import pathlib
import re
import sys
import unittest
import xml.etree.ElementTree as xml

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tools"))
# pylint: disable=wrong-import-position
from evaluate import EvaluationError, charts, documents, tables


class Documents(unittest.TestCase):
    def test_every_table_and_chart_is_what_the_cards_say(self):
        self.assertEqual(documents.differences(), [], "run tools/evaluate --render")

    def test_the_trade_off_is_the_readmes_first_picture(self):
        pictures = re.findall(r"!\[.*?\]\((.*?)\)", (ROOT / "README.md").read_text())
        self.assertEqual(pictures[0], "docs/images/quality_tradeoff.svg")

    def test_every_shipped_cat_is_in_the_page_on_quality(self):
        page = (ROOT / "docs/quality.md").read_text()
        for model, card in documents.shipped_cards().items():
            self.assertTrue(f"<!-- table {model} cost:" in page, f"no costs of {model}")
            for task in card["tasks"]:
                self.assertRegex(task["name"], r"^[a-z0-9_]{1,32}$")

    def test_no_card_names_a_place_on_somebodys_machine(self):
        for model in documents.shipped_cards():
            text = (ROOT / "models" / model / "card.json").read_text()
            self.assertIsNone(re.search(r'"(/|~)', text), model)


class Rendering(unittest.TestCase):
    def setUp(self):
        self.cards = documents.shipped_cards()

    def test_a_changed_figure_changes_the_table(self):
        page = "before\n<!-- table text bits -->\nold\n<!-- end table -->\nafter\n"
        filled = documents.filled(page, self.cards)
        self.assertEqual(documents.filled(filled, self.cards), filled)
        self.assertTrue(filled.startswith("before\n") and filled.endswith("\nafter\n"))
        other = json.loads(json.dumps(self.cards))
        other["text"]["tasks"][0]["values"][0]["value"] += 0.5
        self.assertNotEqual(documents.filled(filled, other), filled)

    def test_an_unknown_table_is_refused_with_those_there_are(self):
        for marker in ("text nonsense", "nobody bits"):
            with self.assertRaisesRegex(EvaluationError, "there are"):
                documents.filled(f"<!-- table {marker} -->\n<!-- end table -->", self.cards)

    def test_a_card_without_the_figures_names_the_command_that_measures_them(self):
        page = "<!-- table text bits -->\n<!-- end table -->"
        with self.assertRaisesRegex(EvaluationError, "make evaluate MODEL=models/text"):
            documents.filled(page, {"text": {"name": "text"}})

    def test_tables_have_a_cell_for_every_head(self):
        for model, card in self.cards.items():
            for name in ("training", "bits" if "quality" in card else "accuracy", "cost"):
                lines = tables.TABLES[name](card)
                self.assertEqual({line.count("|") for line in lines}, {lines[0].count("|")})

    def test_charts_are_svg_with_a_dot_for_every_figure(self):
        made = charts.all_of(self.cards)
        self.assertEqual(set(made), {"quality_tradeoff", "quality_positions", "quality_recall"})
        dots = xml.fromstring(made["quality_tradeoff"].svg()).findall(
            ".//{http://www.w3.org/2000/svg}circle")
        figures = [figure for name in ("text", "recall")
                   for figure in documents.card.figures(self.cards[name]["tasks"][0])]
        self.assertEqual(len(dots), len(figures), "every chunk size and the twins")


if __name__ == "__main__":
    unittest.main()
