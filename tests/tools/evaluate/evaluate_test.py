#!/usr/bin/env python3
"""tools/evaluate from end to end, on a tiny piece of everything: evaluate_test.py BUILD_DIR."""

import json
import pathlib
import signal
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[3]
BUILD = None  # the first argument


def evaluate(model, *flags):
    return subprocess.run([sys.executable, ROOT / "tools/evaluate", BUILD, "--model", model,
                           "--quick", *flags], text=True, capture_output=True, check=False)


class Evaluate(unittest.TestCase):
    def setUp(self):
        self.models = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

    def copy(self, name):
        """A shipped model whose card may be written."""
        directory = self.models / name
        directory.mkdir()
        for file in (ROOT / "models" / name).iterdir():
            (directory / file.name).symlink_to(file)
        card = directory / "card.json"
        if card.exists():
            content = card.read_text()
            card.unlink()
            card.write_text(content)
        return directory

    def test_a_model_gets_a_card_and_the_check_finds_a_changed_figure(self):
        model, twin = self.copy("text"), self.copy("text-dense")
        (model / "card.json").write_text(json.dumps(
            {"unigram_nll": 6.7, "dense_twin": {"path": "../text-dense", "dim": 128, "n_layer": 4,
                                                "n_local_heads": 4, "head_dim": 32}}))
        done = evaluate(model)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("dense twin", done.stdout)

        card = json.loads((model / "card.json").read_text())
        sizes = [row["chunk_size"] for row in card["quality"]]
        self.assertEqual(sizes, [4, 8, 16, 32])
        self.assertEqual((card["unigram_nll"], card["dense_twin"]["dim"]), (6.7, 128))
        self.assertGreater(card["parameters"], card["dense_twin"]["parameters"])
        self.assertEqual([row["heldout_bits_per_byte"] for row in card["quality"]],
                         [value["value"] for value in card["tasks"][0]["values"]])
        peaks = [row["kv_bytes_peak"] for row in card["cost"]["rows"]]
        self.assertLess(peaks[-1], peaks[0])
        self.assertLess(peaks[0], card["cost"]["dense_twin"]["kv_bytes_peak"])
        self.assertEqual(card["evaluation"]["command"], "make evaluate MODEL=text")

        card["tasks"][0]["values"][1]["value"] -= 0.01
        (model / "card.json").write_text(json.dumps(card))
        checked = evaluate(model, "--check")
        self.assertEqual(checked.returncode, 1)
        complaints = [line for line in checked.stderr.splitlines() if "differs" in line]
        self.assertEqual(len(complaints), 1, checked.stderr)
        self.assertIn("text/card.json differs: tasks[0].values[1].value", complaints[0])
        self.assertEqual(json.loads((model / "card.json").read_text()), card, "a check writes")
        self.assertFalse((twin / "card.json").exists())

    def test_a_model_of_the_recall_task_needs_no_text(self):
        model = self.copy("recall")
        self.copy("recall-dense")
        (model / "card.json").write_text(json.dumps(
            {"dense_twin": {"path": "../recall-dense", "dim": 64, "n_layer": 2,
                            "n_local_heads": 4, "head_dim": 16}}))
        done = evaluate(model)
        self.assertEqual(done.returncode, 0, done.stderr)
        card = json.loads((model / "card.json").read_text())
        self.assertEqual([task["name"] for task in card["tasks"]],
                         ["recall_16", "recall_4", "recall_8", "recall_32", "recall_64"])
        self.assertNotIn("quality", card)
        shares = [value["value"] for task in card["tasks"] for value in task["values"]]
        self.assertTrue(all(0 <= share <= 1 for share in shares))
        self.assertIn("dense_twin", card["distances"]["rows"][0])

    def test_ctrl_c_leaves_the_card_as_it_was_and_no_traceback(self):
        model = self.copy("text")
        before = (model / "card.json").read_bytes()
        with subprocess.Popen([sys.executable, ROOT / "tools/evaluate", BUILD, "--model", model,
                               "--quick"], stderr=subprocess.PIPE, text=True) as process:
            self.assertEqual(process.stderr.readline(), "== text\n")
            process.send_signal(signal.SIGINT)
            self.assertNotIn("Traceback", process.stderr.read())
        self.assertEqual(process.returncode, 130)
        self.assertEqual((model / "card.json").read_bytes(), before)

    def test_what_cannot_be_measured_is_said(self):
        for nothing in (self.models, self.models / "none"):
            no_model = evaluate(nothing)
            self.assertEqual(no_model.returncode, 1)
            self.assertIn("config.json is missing", no_model.stderr)
        dense = evaluate(self.copy("text-dense"))
        self.assertIn("is a dense model", dense.stderr)
        no_text = evaluate(self.copy("text"), "--text", self.models / "none.txt")
        self.assertIn("TEXT=file", no_text.stderr)


if __name__ == "__main__":
    BUILD = pathlib.Path(sys.argv.pop(1))
    unittest.main()
