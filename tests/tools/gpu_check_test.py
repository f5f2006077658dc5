#!/usr/bin/env python3
"""The runner of make gpu-check tells what happened, whatever its stages do. No GPU is needed: the
stages are small commands of this test."""

import contextlib
import fnmatch
import io
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import unittest
from unittest import mock

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import gpu_check  # noqa: E402
from gpu_check import GIB, Gpu, Report, Stage  # noqa: E402

PASSES = Stage("passes", ["sh", "-c", "echo some text; echo copy.rate=4300.5 GB/s"], 60)
FAILS = Stage("fails", ["sh", "-c", "echo tests.run=7 tests; echo broken >&2; exit 5"], 60)
HANGS = Stage("hangs", ["sh", "-c", "echo half.done=1 step; sleep 1000 & echo $! >child; wait"], 2)
NO_TOOL = Stage("no tool", ["true"], 60, tool="no-such-sanitizer")


class Runner(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.report = Report(self.folder / "results", {"gpu": {"name": "none"}, "revision": "x"})

    def check(self, *stages, limit_s=60):
        """Runs the stages; returns the exit status, and keeps what was printed."""
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            status = gpu_check.check(stages, self.report, self.folder, dict(os.environ), limit_s)
        self.printed = printed.getvalue()
        return status

    def written(self):
        text = (self.folder / "results" / "results.json").read_text(encoding="utf-8")
        return {s["name"]: s for s in json.loads(text)["stages"]}

    def test_what_passes_is_green_and_its_figures_are_kept(self):
        self.assertEqual(self.check(PASSES), 0)
        self.assertEqual(self.written()["passes"]["figures"], {"copy.rate": [4300.5, "GB/s"]})
        self.assertIn("some text", (self.report.log).read_text(encoding="utf-8"))

    def test_a_failed_stage_stops_none_and_makes_the_whole_fail(self):
        self.assertEqual(self.check(FAILS, PASSES), 1)
        self.assertEqual(self.written()["fails"]["status"], "failed")
        self.assertIn("5", self.written()["fails"]["reason"])
        self.assertEqual(self.written()["fails"]["figures"], {"tests.run": [7, "tests"]})
        self.assertEqual(self.written()["passes"]["status"], "passed")
        self.assertIn("broken", self.report.log.read_text(encoding="utf-8"))

    def test_a_hanging_stage_ends_with_all_that_it_started(self):
        self.assertEqual(self.check(HANGS, PASSES), 1)
        self.assertEqual(self.written()["hangs"]["status"], "timed out")
        self.assertEqual(self.written()["hangs"]["figures"], {"half.done": [1, "step"]})
        self.assertEqual(self.written()["passes"]["status"], "passed")
        child = int((self.folder / "child").read_text(encoding="utf-8"))
        for _ in range(1000):  # whoever adopted it may take a moment to bury it
            state = pathlib.Path(f"/proc/{child}/stat")
            with contextlib.suppress(OSError):
                if state.read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0] != "Z":
                    time.sleep(0.01)
                    continue
            return
        self.fail("the child of a stage that was ended lives on")

    def test_a_missing_tool_is_skipped_and_said(self):
        self.assertEqual(self.check(PASSES, NO_TOOL), 0)
        self.assertEqual(self.written()["no tool"]["status"], "skipped")
        self.assertIn("no-such-sanitizer is not installed", self.printed)

    def test_nothing_passed_is_not_green(self):
        self.assertEqual(self.check(NO_TOOL), 1)
        self.assertEqual(self.check(), 1)

    def test_a_program_that_finds_no_gpu_where_there_is_one_has_failed(self):
        self.assertEqual(self.check(PASSES, Stage("finds none", ["sh", "-c", "exit 3"], 60)), 1)
        self.assertIn("could not use the GPU", self.written()["finds none"]["reason"])

    def test_a_program_that_is_missing_has_failed(self):
        self.assertEqual(self.check(Stage("missing", ["bin/no_such_test"], 60), PASSES), 1)
        self.assertIn("cannot be started", self.written()["missing"]["reason"])

    def test_all_stages_together_have_a_limit(self):
        self.assertEqual(self.check(Stage("long", HANGS.command, 60), PASSES, limit_s=1.2), 1)
        self.assertEqual(self.written()["long"]["status"], "timed out")
        self.assertEqual(self.written()["passes"]["status"], "not run")

    def test_results_are_there_after_every_stage(self):
        # The second stage sees what is written of the first.
        look = Stage("look", ["grep", "-q", '"name": "passes"', "results/results.json"], 60)
        self.assertEqual(self.check(PASSES, look), 0)

    def test_the_table_comes_last_and_is_kept(self):
        self.check(PASSES, FAILS, NO_TOOL)
        table = (self.folder / "results" / "table.txt").read_text(encoding="utf-8")
        self.assertTrue(self.printed.endswith("\n" + table))
        self.assertEqual([line.split()[0] for line in table.splitlines()],
                         ["passes", "fails", "no"])

    def test_figures_stand_beside_the_authors(self):
        found = {"dense-published.dense.decode.batch320": [40000.0, "tokens/s"],
                 "cat-published.c16.decode.batch320": [130000.0, "tokens/s"],
                 "cat-published.c16.decode.batch320.kv_per_sequence": [13.5e6, "bytes"],
                 "cat-published.c16.prefill_4095": [1.25, "ms"]}
        lines = gpu_check.beside_the_authors(found)
        c16 = [cell.strip() for cell in next(x for x in lines if x.startswith("c16")).split("|")]
        self.assertEqual(c16[1:], ["38800", "130000", "2.68", "3.25", "10", "4.3", "1.25", "0.90"])
        self.assertEqual(gpu_check.beside_the_authors({}), [])


    def test_fractions_stand_beside_what_was_asked_for(self):
        found = {f"{name}.floor_fraction": [value, "1"] for name, value in (
            ("attention.batch64.c16.BF16", 0.85), ("cat-published.c4.decode.batch320", 0.55),
            ("dense-published.dense.decode.batch1", 0.45), ("sample.plain.rows320", 0.1))}
        blank, attention, cat, dense = gpu_check.beside_the_goals(
            {**found, "cat-published.c4.decode.batch320": [1.0, "tokens/s"]})
        self.assertEqual(blank, "")
        self.assertRegex(attention, r"c16\.BF16 +85\.0% of its floor; asked for 80%$")
        self.assertRegex(cat, r"batch320 +55\.0% .* 60%: MISSED$")
        self.assertRegex(dense, r"batch1 +45\.0% .* 40%$")
        self.assertEqual(gpu_check.beside_the_goals({}), [])

    def test_says_which_share_of_the_steps_parts_was_replayed(self):
        blank, line = gpu_check.replays({"cat.c16.decode.batch32.replayed": [0.975, "1"],
                                         "cat.c16.decode.batch32": [9, "tokens/s"]})
        self.assertEqual(blank, "")
        self.assertEqual(line.split(), "cat.c16.decode.batch32.replayed 97.5% of the steps' "
                                       "parts".split())
        self.assertEqual(gpu_check.replays({}), [])

    def test_the_rate_of_8_bits_stands_beside_what_was_asked_for(self):
        def line(rate):
            return gpu_check.beside_the_goals({"f8.c16.decode.batch320": [rate, "1/s"]})[1]
        self.assertRegex(line(200_000), "200000 tokens/s; asked for 200000$")
        self.assertRegex(line(199_999), "199999 tokens/s; asked for 200000: MISSED$")


class Whole(unittest.TestCase):
    """A bundle whose programs are scripts, on a machine that seems to have a GPU."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        (self.folder / "bundle" / "bin").mkdir(parents=True)
        (self.folder / "bundle" / "REVISION").write_text("abc123\n", encoding="utf-8")
        for program in ("cuda_test", "kernel_bench", "engine_bench"):
            self.write(program, "echo $0.runs=1 1 | sed 's|.*/||'")

    def write(self, program, script):
        path = self.folder / "bundle" / "bin" / program
        path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        path.chmod(0o755)

    def run_main(self, *arguments):
        gpu = Gpu("NVIDIA Card 1", 16 * GIB, "13", 90)
        with mock.patch.object(gpu_check, "find_gpu", lambda: gpu), \
             mock.patch.object(gpu_check, "SERVE", "true"), \
             contextlib.redirect_stdout(io.StringIO()) as printed:
            status = gpu_check.main([f"--bundle={self.folder / 'bundle'}",
                                     f"--out={self.folder / 'out'}", *arguments])
        self.printed = printed.getvalue()
        return status

    def results(self):
        return json.loads((self.folder / "out" / "results.json").read_text(encoding="utf-8"))

    def test_from_the_bundle_to_the_table(self):
        self.assertEqual(self.run_main(), 0)
        results = self.results()
        self.assertEqual(results["gpu"]["name"], "NVIDIA Card 1")
        self.assertEqual(results["revision"], "abc123")
        states = {s["name"]: s["status"] for s in results["stages"]}
        self.assertEqual(len(states), 19)
        self.assertTrue(all(state == "passed" for name, state in states.items()
                            if not name.endswith("check")), states)

    def test_some_stages_alone(self):
        self.write("cuda_test", "case $1 in *Backends/*:*) exit 1;; esac")
        self.assertEqual(self.run_main("--stages=contract,golden"), 1)
        states = {s["name"]: s["status"] for s in self.results()["stages"]}
        self.assertEqual(states, {"contract": "passed", "golden": "failed"})

    def test_a_stage_that_there_is_not_is_named(self):
        with self.assertRaisesRegex(SystemExit, "no golded among ceilings, contract, golden, "):
            self.run_main("--stages=contract,golded")

    def test_without_a_bundle_nothing_is_built_if_so_asked(self):
        self.write("cuda_test", "exit 127")
        self.assertEqual(self.run_main("--no-build"), gpu_check.SKIPPED)
        self.assertIn("--no-build", self.printed)


class Commands(unittest.TestCase):
    def test_a_machine_without_a_driver_is_told_apart(self):
        with self.assertRaisesRegex(gpu_check.NoGpu, "cannot be loaded"):
            gpu_check.find_gpu("libno-such-driver.so.1")
        try:
            gpu_check.find_gpu()
        except gpu_check.NoGpu:
            done = subprocess.run([sys.executable, ROOT / "tools" / "gpu_check.py"], text=True,
                                  capture_output=True, check=False)
            self.assertEqual(done.returncode, gpu_check.SKIPPED)
            self.assertIn("no GPU here, nothing was run", done.stdout)

    def test_a_smaller_card_gets_smaller_batches(self):
        def batches(gib):
            stages = gpu_check.all_stages(Gpu("card", gib * GIB, "13", 90), "scratch")
            engine = next(s for s in stages if s.name == "engine")
            return next(a for a in engine.command if a.startswith("--batches="))
        self.assertEqual(batches(139), "--batches=1,32,128,320")
        self.assertEqual(batches(39), "--batches=1,32,128")
        self.assertEqual(batches(22), "--batches=1,32")

    def test_a_card_that_knows_no_f8_is_not_asked_for_it(self):
        def stages(capability):
            return {s.name for s in gpu_check.all_stages(Gpu("card", GIB, "13", capability), "x")}
        self.assertEqual(stages(89) - stages(80), {"engine-f8"})
        self.assertEqual(stages(90) - stages(89), {"engine-f8-weights"})

    def test_the_sanitizer_runs_tests_that_there_are(self):
        sources = (ROOT / "tests" / "kernels").rglob("*_contract_test.cc")
        text = "".join(s.read_text(encoding="utf-8") for s in sources)
        names = [f"/{suite}.{test}/" for suite, test in re.findall(r"^TEST_P\((\w+), (\w+)\)", text,
                                                                   re.M)]
        for pattern in gpu_check.FEW:
            self.assertTrue(fnmatch.filter(names, pattern), pattern)

    def test_the_benchmarks_know_their_flags(self):
        build = os.environ.get("CATSERVE_BUILD")
        if not build:
            self.skipTest("CATSERVE_BUILD names no build folder")
        with contextlib.suppress(gpu_check.NoGpu):
            gpu_check.find_gpu()
            self.skipTest("they would run on the GPU of this machine")
        stages = gpu_check.all_stages(Gpu("card", 139 * GIB, "13", 90), "scratch")
        commands = [s.command for s in stages if "bench" in s.command[0]]
        self.assertEqual(len(commands), 12)
        for command in commands:
            program = pathlib.Path(build, "bench", pathlib.Path(command[0]).name)
            done = subprocess.run([program, *command[1:]], text=True, check=False,
                                  capture_output=True)
            self.assertRegex(done.stderr, "there is no backend|no CUDA device answers")

    def test_the_server_is_started_asked_and_ended(self):
        build = os.environ.get("CATSERVE_BUILD")
        if not build:
            self.skipTest("CATSERVE_BUILD names no build folder")
        with tempfile.TemporaryDirectory() as folder:
            bundle = pathlib.Path(folder)
            (bundle / "bin").symlink_to(pathlib.Path(build).resolve() / "server")
            (bundle / "models").symlink_to(ROOT / "models")
            serve = gpu_check.SERVE.replace("--backend=cuda", "--backend=cpu --threads=1")
            done = subprocess.run(["bash", "-c", serve], cwd=bundle, text=True, check=False,
                                  capture_output=True)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(done.stderr.count("32 generated"), 2)
            failing = serve.replace("--backend=cpu", "--backend=none")
            done = subprocess.run(["bash", "-c", failing], cwd=bundle, text=True, check=False,
                                  capture_output=True)
            self.assertNotEqual(done.returncode, 0)

    def test_every_tool_of_the_sanitizer_has_its_stage(self):
        stages = gpu_check.all_stages(Gpu("card", 139 * GIB, "13", 90), "scratch")
        self.assertEqual([s.name for s in stages if s.tool],
                         ["memcheck", "racecheck", "synccheck", "initcheck"])

    def test_what_is_no_bundle_does_not_start(self):
        with tempfile.TemporaryDirectory() as folder:
            program = pathlib.Path(folder) / "bin" / "cuda_test"
            self.assertFalse(gpu_check.starts(pathlib.Path(folder)))
            program.parent.mkdir()
            for status, good in ((0, True), (3, True), (1, False), (127, False)):
                program.write_text(f"#!/bin/sh\nexit {status}\n", encoding="utf-8")
                program.chmod(0o755)
                self.assertEqual(gpu_check.starts(pathlib.Path(folder)), good, status)


if __name__ == "__main__":
    unittest.main()
