#!/usr/bin/env python3
"""The training recipe: what it learns is what the server computes, and a run that was stopped goes
on as if it had not been.

    tests/train/recipe_test.py BUILD_DIR

Needs python3-torch and python3-tqdm (tools/check_train.sh installs them).
"""

import argparse
import contextlib
import io
import json
import pathlib
import signal
import subprocess
import sys
import tempfile
import types
import unittest
import unittest.mock

import grpc
import numpy as np
import torch

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "tools/train")]
# pylint: disable=wrong-import-position
import checkpoint
import choose
import export
import heldout
import loop
import make_tokenizer
import model as models
import recall
import train
from serve_bench.harness import Bench, Server
from soak_load import generated_messages

BUILD = None
SIZES = (4, 8)
TOLERANCE = 2e-4  # nats: float32 throughout, sums in another order


def run_arguments(out, **more):
    """What the command line would have given."""
    parser = argparse.ArgumentParser()
    loop.add_arguments(parser, minutes=1, lr=1e-3)
    return argparse.Namespace(**{**vars(parser.parse_args([str(out)])), "device": "cpu", **more})


def corpus(folder):
    """A work directory with a made-up corpus of 40 words."""
    folder = pathlib.Path(folder)
    rng = np.random.default_rng(1)
    for split, count in (("train", 4000), ("heldout", 600)):
        rng.integers(1, 40, count).astype(np.uint16).tofile(folder / f"{split}.bin")
    words = {f"w{i}": i for i in range(40)}
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": words}}))
    return folder


class TheServerComputesWhatWasTrained(unittest.TestCase):
    def served_losses(self, directory, tokens, sizes):
        """{chunk size: negative log-probability of tokens[1:]}, by Score."""
        with tempfile.TemporaryDirectory() as folder:
            messages = generated_messages(folder)
        found = {}
        with Server(Bench(BUILD, quick=True), directory, weight_dtype="F32") as server, \
                grpc.insecure_channel(server.address) as channel:
            score = channel.unary_stream(
                "/catserve.v1.Generation/Score",
                request_serializer=messages.ScoreRequest.SerializeToString,
                response_deserializer=messages.ScoreResponse.FromString)
            for size in sizes:
                request = messages.ScoreRequest(chunk_size=size or None)
                request.text.token_ids.ids.extend(tokens.tolist())
                found[size] = [-token.logprob for event in score(request, timeout=60)
                               for token in event.scores.tokens]
        return found

    def check(self, config, sizes):
        torch.manual_seed(3)
        fresh = models.build(config)
        with torch.no_grad():  # the quiet output matrix of a fresh model would hide errors
            fresh.output.weight.mul_(20)
        tokens = torch.randint(0, config["decoder"]["vocab_size"], (61,))
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            checkpoint.save(str(folder / "fresh.pt"), model=fresh.state_dict(), config=config,
                            step=0, tokens=0, seconds=0.0)
            subprocess.run([sys.executable, ROOT / "tools/train/export.py", folder / "fresh.pt",
                            folder, folder / "model"], check=True, capture_output=True)
            trained = heldout.load_model(str(folder / "model"))  # rounded to BF16
            served = self.served_losses(folder / "model", tokens, sizes)
        for size in sizes:
            whole = len(tokens) - len(tokens) % (size or 1)  # training has whole chunks only
            with torch.no_grad():
                expected = trained.losses(tokens[None, :whole], size or None)[0, 1:]
            self.assertEqual(len(served[size]), len(tokens) - 1)
            self.assertGreater(expected.std().item(), 0.5)  # not all the same
            off = (torch.tensor(served[size][:whole - 1]) - expected).abs().max().item()
            self.assertLess(off, TOLERANCE, f"chunk size {size}")

    def test_of_a_cat_at_every_chunk_size(self):
        self.check(models.config("cat", 32, 2, 4, 48, 50, 64, 16, 1, 2, 32, SIZES), SIZES)

    def test_of_a_dense_model(self):
        self.check(models.config("dense", 32, 2, 4, 48, 50, 64), (0,))


class ARunThatWasStoppedGoesOn(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = corpus(folder.name)

    def weights_after(self, make, cuts):
        """Parameters after the steps of `cuts` in turn, each in a run that begins from the
        checkpoint of the last."""
        out = self.folder / f"{len(cuts)}.pt"
        for steps in cuts:
            run = make(out)
            for _ in range(steps):
                run.one_step()
            run.save()
        return torch.cat([p.detach().view(-1) for p in run.model.parameters()])

    def same(self, make):
        whole = self.weights_after(make, (6,))
        self.assertTrue(torch.equal(self.weights_after(make, (2, 1, 3)), whole))
        self.assertFalse(torch.equal(self.weights_after(make, (2, 3)), whole))

    def test_of_text_bit_for_bit(self):
        self.same(lambda out: train.Run(run_arguments(
            out, kind="cat", work=str(self.folder), tokens=6 * 128, init=None, batch=2, block=64)))

    def test_of_recall_bit_for_bit(self):
        self.same(lambda out: recall.Run(run_arguments(out, kind="cat", tokens=6 * 256, batch=256)))

    def test_when_it_is_told_to_stop_it_saves_and_leaves(self):
        out = self.folder / "told.pt"
        command = [sys.executable, ROOT / "tools/train/train.py", "dense", self.folder, out,
                   "--block", "64", "--minutes", "1000"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            self.assertIn("parameters", process.stdout.readline())
            process.send_signal(signal.SIGTERM)
            process.communicate()
        # Not 0: to run.sh a run that was stopped was one that is done.
        self.assertEqual(process.returncode, 128 + signal.SIGTERM)
        self.assertGreaterEqual(checkpoint.load(out)["step"], 0)

    def test_from_a_shorter_context(self):
        short = train.Run(run_arguments(self.folder / "short.pt", kind="cat", init=None,
                                        work=str(self.folder), tokens=512, batch=2,
                                        block=64))
        short.one_step()
        short.save()
        longer = train.Run(run_arguments(
            self.folder / "long.pt", kind="cat", init=str(self.folder / "short.pt"), tokens=512,
            work=str(self.folder), batch=2, block=128))
        self.assertEqual(longer.tokens, short.tokens)
        old, new = short.model.f.pos_tokens.weight, longer.model.f.pos_tokens.weight
        self.assertEqual(len(new), 2 * len(old))
        self.assertTrue(torch.equal(new[:len(old)], old))


class ClumsyUsers(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

    def refused(self, program, *arguments, code=2):
        with unittest.mock.patch("sys.argv", [program.__name__, *map(str, arguments)]), \
                contextlib.redirect_stderr(io.StringIO()) as told, \
                self.assertRaises(SystemExit) as ended:
            program.main()
        if isinstance(ended.exception.code, str):  # what sys.exit would print
            return ended.exception.code
        self.assertEqual(ended.exception.code, code)
        return told.getvalue()

    def test_numbers_with_which_no_run_ends_or_begins(self):
        out = self.folder / "x.pt"
        for flag in ("--minutes=0", "--minutes=-1", "--minutes=nan", "--lr=nan", "--threads=0",
                     "--tokens=-5", "--batch=0"):
            self.assertIn("is out of range", self.refused(recall, "cat", out, flag), flag)
        self.assertIn("no/such is no folder: make it first",
                      self.refused(recall, "cat", "no/such/x.pt"))

    def test_what_is_missing_or_too_small_is_named(self):
        self.assertIn("tokenizer.json is missing: run corpus.py and make_tokenizer.py",
                      self.refused(train, "cat", self.folder, self.folder / "x.pt"))
        small = corpus(self.folder)
        self.assertIn("the corpus has 4000 tokens, less than a step of 4 windows of 1024 takes",
                      self.refused(train, "cat", small, self.folder / "x.pt", "--batch=4"))
        with unittest.mock.patch("importlib.util.find_spec", return_value=None):
            self.assertIn("pip install -r", self.refused(make_tokenizer, self.folder))

    def test_a_damaged_checkpoint_and_one_of_another_model_are_said(self):
        out = self.folder / "x.pt"
        run = recall.Run(run_arguments(out, kind="cat", tokens=256, batch=256))
        run.save()
        self.assertIn("is the checkpoint of another model", self.refused(recall, "dense", out))
        whole = out.read_bytes()
        for content in (b"garbage", whole[:1000], whole[:-100]):
            out.write_bytes(content)
            for program, *arguments in ((recall, "cat", out), (choose, out),
                                        (export, out, self.folder, self.folder / "model")):
                self.assertIn("x.pt is no checkpoint", self.refused(program, *arguments))

    def test_a_checkpoint_that_would_run_code_runs_none(self):
        marker, out = self.folder / "it_ran", self.folder / "x.pt"

        class Hostile:
            def __reduce__(self):
                return pathlib.Path.touch, (marker,)

        torch.save({"model": Hostile()}, out)
        self.assertRegex(self.refused(choose, out), "x.pt is no checkpoint .*getattr")
        self.assertFalse(marker.exists())

    def test_a_full_disk_leaves_the_checkpoint_of_before(self):
        out = str(self.folder / "x.pt")
        checkpoint.save(out, step=1)

        def full(_state, path):
            pathlib.Path(path).write_bytes(b"half")
            raise RuntimeError("No space left on device")

        with unittest.mock.patch("torch.save", full), self.assertRaises(SystemExit):
            checkpoint.save(out, step=2)
        self.assertEqual(checkpoint.load(out)["step"], 1)
        self.assertEqual(sorted(p.name for p in self.folder.iterdir()), ["x.pt"])

    def test_what_says_that_the_corpus_is_whole_comes_last(self):
        (self.folder / "corpus.jsonl").write_text("".join(
            json.dumps({"package": "sqlite3-doc", "split": split, "text": "A word. " * 99}) + "\n"
            for split in ("train", "heldout")))
        encoded = types.SimpleNamespace(ids=[1, 2])
        tokenizer = types.SimpleNamespace(
            save=lambda path, pretty: None, token_to_id=lambda token: 0,
            encode_batch=lambda texts: [encoded] * len(texts))
        done = []
        with unittest.mock.patch.multiple(
                make_tokenizer, train=lambda texts, size: tokenizer, write_cases=lambda *_: None), \
                unittest.mock.patch("importlib.util.find_spec"), \
                unittest.mock.patch("sys.argv", ["make_tokenizer", str(self.folder)]), \
                contextlib.redirect_stdout(io.StringIO()), \
                unittest.mock.patch("os.replace", lambda _, to: done.append(
                    (pathlib.Path(to).name, {p.name for p in self.folder.iterdir()}))):
            make_tokenizer.main()
        self.assertEqual([name for name, _ in done], ["heldout.bin", "train.bin"])
        self.assertLessEqual({"heldout_bytes.json", "heldout.txt", "heldout_other.txt"},
                             done[-1][1])

    def test_run_sh_says_how_it_is_used(self):
        for words in ((), ("fly", "a", "b"), ("text",), ("recall", "a", "b", "1", "2")):
            done = subprocess.run([ROOT / "tools/train/run.sh", *words], text=True,
                                  capture_output=True, check=False)
            self.assertEqual(done.returncode, 2)
            self.assertRegex(done.stderr, r"\Arun.sh: .*; usage: .* WORK OUT \[MINUTES\]\n\Z")


class TheTaskOfRecall(unittest.TestCase):
    def test_asks_for_every_key_once_and_its_value_follows(self):
        tokens, asked = recall.draw(50, recall.LENGTH, 16, np.random.default_rng(5))
        for row, mask in zip(tokens, asked):
            shown = dict(zip(row[0:32:2].tolist(), row[1:32:2].tolist()))
            self.assertEqual(len(shown), 16)
            where = mask.nonzero().view(-1)
            self.assertEqual({row[i - 1].item(): row[i].item() for i in where}, shown)


if __name__ == "__main__":
    BUILD = pathlib.Path(sys.argv.pop(1)).resolve()
    unittest.main()
