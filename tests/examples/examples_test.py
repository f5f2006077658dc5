#!/usr/bin/python3
"""What people see who run examples/ against a real server: examples_test.py BUILD_DIR"""

import json
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/server"), str(ROOT / "tools")]
import python_client  # noqa: E402
from catserved import MODEL, Server  # noqa: E402

EXAMPLES = ROOT / "examples"
HELDOUT = (MODEL / "heldout.txt").read_text()


def setUpModule():
    folder = pathlib.Path(unittest.enterModuleContext(tempfile.TemporaryDirectory()))
    python_client.install(folder)
    Examples.folder = folder
    Examples.server = unittest.enterModuleContext(Server("--slots=4"))


class Examples(unittest.TestCase):
    """The examples as their users start them, beside one server."""

    def command(self, name, *arguments):
        return [sys.executable, EXAMPLES / name, "--server", self.server.address, *arguments]

    def environment(self):
        return os.environ | {"PYTHONPATH": str(self.folder), "PYTHONDONTWRITEBYTECODE": "1"}

    def run_example(self, name, *arguments, said="", code=0):
        """Its standard output and error."""
        done = subprocess.run(self.command(name, *arguments), input=said, text=True,
                              capture_output=True, env=self.environment(), cwd=ROOT, check=False)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return done.stdout, done.stderr

    def file(self, text):
        path = self.folder / "document.txt"
        path.write_text(text)
        return str(path)


class LongDocument(Examples):
    def test_the_progress_rises_to_100_percent_and_the_text_follows(self):
        text, told = self.run_example("long_document.py", self.file(HELDOUT[:1000]),
                                      "--piece_tokens=64")
        percents = [int(p) for p in re.findall(r"(\d+)%", told)]
        self.assertEqual((percents, percents[-1]), (sorted(set(percents)), 100))
        self.assertGreaterEqual(len(percents), 4)
        self.assertGreater(len(text), 20)
        # What the progress claims is true: the pieces were not read again.
        cached, prompt = re.search(r"([\d,]+) of ([\d,]+) prompt tokens were", told).groups()
        self.assertGreater(int(cached) + 16, int(prompt))

    def test_memory_is_shown_beside_what_dense_models_hold(self):
        _, told = self.run_example("long_document.py", self.file(HELDOUT[:1000]))
        numbers = re.search(r"at chunk size 16: ([\d,]+); a dense model as wide: ([\d,]+) \(", told)
        mine, dense = (int(n.replace(",", "")) for n in numbers.groups())
        self.assertLess(4 * mine, dense)
        self.assertRegex(told, r"the dense model of the same quality: [\d,]{5}")

    def test_a_document_beyond_the_context_is_refused_with_a_remedy_that_works(self):
        long = self.file(HELDOUT)
        _, told = self.run_example("long_document.py", long, code=2)
        self.assertRegex(told, r"document.txt has [\d,]+ tokens, the model's context holds [\d,]+ "
                               r"beside --max_tokens=64: give --tail")
        text, told = self.run_example("long_document.py", long, "--tail", "--max_tokens=5")
        self.assertIn("100%", told)
        self.assertTrue(text.strip())

    def test_bad_documents_are_named(self):
        _, told = self.run_example("long_document.py", "there/is/none.txt", code=2)
        self.assertIn("cannot read there/is/none.txt: [Errno 2]", told)
        _, told = self.run_example("long_document.py", self.file(""), code=2)
        self.assertIn("document.txt is empty", told)
        (self.folder / "latin1.txt").write_bytes(b"caf\xe9")
        _, told = self.run_example("long_document.py", str(self.folder / "latin1.txt"), code=2)
        self.assertIn("latin1.txt: 'utf-8' codec", told)

    def test_errors_name_the_remedy(self):
        _, told = self.run_example("long_document.py", "--server=127.0.0.1:1", "README.md", code=1)
        self.assertIn("Is a server running at 127.0.0.1:1? Start one: make serve", told)
        _, told = self.run_example("long_document.py", self.file("x"), "--chunk_size=5", code=1)
        self.assertIn("INVALID_ARGUMENT: budget.chunk_size 5", told)


class Conversation(Examples):
    TURN = re.compile(r"\[(\d+) prompt tokens, (\d+) of them in the cache, first token after")

    def test_a_turn_finds_the_turns_before_in_the_cache(self):
        said = "In the beginning was the word\nAnd the king said\nWhat did he say?\n"
        told, _ = self.run_example("conversation.py", said=said)
        turns = [(int(p), int(c)) for p, c in self.TURN.findall(told)]
        self.assertEqual(len(turns), 3, told)
        for (before, _), (prompt, cached) in zip(turns, turns[1:], strict=False):
            self.assertLess(prompt - cached, prompt - before, "the answer too is found again")
            self.assertGreater(cached, 0)

    def test_a_full_context_forgets_the_oldest_turns(self):
        context = json.loads((MODEL / "config.json").read_text())["decoder"]["block_size"]
        said = HELDOUT[:300].replace("\n", " ") + "\nAnd the king said\n"
        told, _ = self.run_example("conversation.py", f"--max_tokens={context - 40}", said=said)
        self.assertRegex(told, r"\[the context is full: the oldest \d+ tokens are forgotten\]")
        self.assertEqual(len(self.TURN.findall(told)), 2)
        _, told = self.run_example("conversation.py", f"--max_tokens={context}", code=2)
        self.assertIn(f"--max_tokens={context} leaves no room", told)

    def test_ctrl_c_ends_a_turn_and_not_the_conversation(self):
        talk = subprocess.Popen(self.command("conversation.py"), stdin=subprocess.PIPE, bufsize=0,
                                stdout=subprocess.PIPE, env=self.environment())
        self.enterContext(talk)

        def read_until(end):
            told = b""
            while not told.endswith(end):
                more = talk.stdout.read(1)
                self.assertTrue(more, told)
                told += more
            return told.decode()

        read_until(b"you> ")
        talk.stdin.write(b"In the beginning was the word\n")
        self.assertRegex(read_until(b"you> "), self.TURN)
        # A server that does not answer leaves all the time of the world to interrupt a turn.
        self.addCleanup(self.server.send_signal, signal.SIGCONT)
        self.server.send_signal(signal.SIGSTOP)
        talk.stdin.write(b"And the king said\n")
        read_until(b"model> ")
        talk.send_signal(signal.SIGINT)
        read_until(b"[stopped]\nyou> ")
        self.server.send_signal(signal.SIGCONT)
        talk.stdin.write(b"What did he say?\n")
        cached = self.TURN.search(read_until(b"you> "))[2]
        self.assertGreater(int(cached), 0)
        talk.stdin.close()
        self.assertEqual(talk.wait(), 0)


class Readme(Examples):
    def test_its_commands_work_as_they_stand(self):
        commands = re.findall(r"^examples/(.+)$", (EXAMPLES / "README.md").read_text(), re.M)
        self.assertEqual({c.split()[0] for c in commands},
                         {p.name for p in EXAMPLES.glob("*.py")} - {"common.py"})
        for command in commands:
            name, *arguments = shlex.split(command)
            self.run_example(name, *arguments)


if __name__ == "__main__":
    os.environ["CATSERVE_BUILD"] = sys.argv.pop(1)
    unittest.main()
