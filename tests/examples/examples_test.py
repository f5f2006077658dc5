#!/usr/bin/python3
"""What people see who run examples/ against a real server: examples_test.py BUILD_DIR"""

import json
import os
import pathlib
import re
import select
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
# Measured values that are not the shipped model's, so that its next training changes no test.
RECALL = {4: 1.0, 8: 0.98, 16: 0.92, 32: 0.6}
TEXT = {4: 1.6, 8: 1.5, 16: 1.4, 32: 1.45}


def write_model(folder):
    """The shipped model with a card of the test's own."""
    folder.mkdir()
    for file in MODEL.iterdir():
        if file.name != "card.json":
            (folder / file.name).symlink_to(file)
    card = json.loads((MODEL / "card.json").read_text())
    card["tasks"] = [
        {"name": name, "measure": measure, "better": better,
         "values": [{"chunk_size": size, "value": value} for size, value in values.items()]}
        for name, measure, better, values in (
            ("recall", "accuracy", "higher", RECALL), ("text", "bits per byte", "lower", TEXT))]
    (folder / "card.json").write_text(json.dumps(card))
    return folder


def setUpModule():
    folder = pathlib.Path(unittest.enterModuleContext(tempfile.TemporaryDirectory()))
    python_client.install(folder)
    Examples.folder = folder
    model = write_model(folder / "text")
    Examples.server = unittest.enterModuleContext(Server(f"--model={model}", "--slots=4"))


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
        self.assertRegex(told, r"the dense twin: [\d,]{5}")

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
        self.addCleanup(self.server.resume)
        self.server.pause()
        talk.stdin.write(b"And the king said\n")
        read_until(b"model> ")
        # gRPC's own code may swallow one. It looks for them when it has waited 0.2 s without one,
        # so signals that come at a steady pace may all go unseen on a busy machine.
        pause = 1
        while not select.select([talk.stdout], [], [], pause)[0]:
            talk.send_signal(signal.SIGINT)
            pause *= 2
        read_until(b"[stopped]\n")
        self.server.resume()
        talk.stdin.write(b"What did he say?\n")
        cached = self.TURN.search(read_until(b" ms]\n"))[2]
        self.assertGreater(int(cached), 0)
        talk.stdin.close()
        self.assertEqual(talk.wait(), 0)


    def test_an_answer_may_be_shorter_than_the_four_tokens_that_are_asked_for(self):
        told, _ = self.run_example("conversation.py", "--max_tokens=2", said="In the beginning\n")
        self.assertEqual(len(self.TURN.findall(told)), 1)

    def test_a_line_that_is_no_text_was_a_traceback(self):
        done = subprocess.run(self.command("conversation.py", "--max_tokens=2"), check=False,
                              input=b"caf\xe9 \xff\n", capture_output=True,
                              env=self.environment() | {"LC_ALL": "C.UTF-8"})
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stdout.decode(), self.TURN)


class ClumsyUsers(Examples):
    def test_numbers_that_no_message_can_hold_were_tracebacks(self):
        document = self.file("In the beginning")
        for name, *words in (("long_document.py", document, "--chunk_size=99999999999"),
                             ("long_document.py", document, "--seed=-1"),
                             ("passages.py", "Why?", document, f"--kv_bytes_max={1 << 63}")):
            _, told = self.run_example(name, *words, code=2)
            option = words[-1].strip("-").split("=")[0]
            self.assertIn(f"error: {option}: Value out of range", told)

    def test_a_context_without_room_for_the_document_is_said(self):
        _, told = self.run_example("long_document.py", self.file("x"), "--tail",
                                   "--max_tokens=5000", code=2)
        self.assertIn("--max_tokens=5000 leaves no room for what is read", told)

    def test_a_document_larger_than_a_message_has_a_remedy(self):
        _, told = self.run_example("long_document.py", self.file("x" * (5 << 20)), code=1)
        self.assertIn("a larger --request_bytes_max", told)

    def test_ctrl_c_before_the_first_request_was_a_traceback(self):
        early = self.folder / "early/catserve"
        early.mkdir(parents=True)
        (early / "__init__.py").write_text("import os, signal\n"
                                           "os.kill(os.getpid(), signal.SIGINT)\n")
        for name in ("long_document.py", "conversation.py", "passages.py"):
            done = subprocess.run([sys.executable, EXAMPLES / name], capture_output=True,
                                  env=self.environment() | {"PYTHONPATH": str(early.parent)},
                                  check=False)
            self.assertEqual((done.returncode, done.stderr), (130, b""), name)

    def test_a_reader_who_has_gone_was_a_traceback(self):
        read, write = os.pipe()
        os.close(read)
        with open(write, "wb") as nobody:
            done = subprocess.run(self.command("passages.py", "Why?", self.file("x")), check=False,
                                  stdout=nobody, stderr=subprocess.PIPE, env=self.environment())
        self.assertEqual((done.returncode, done.stderr), (1, b""))


class Passages(Examples):
    ASKED = ["What did the dove bring?", *sorted(map(str, (EXAMPLES / "passages").iterdir())),
             "--max_tokens=8"]

    def picked(self, *arguments):
        """For each bound the chunk sizes that it allows, and the one that the server took."""
        told, _ = self.run_example("passages.py", *self.ASKED, *arguments)
        return told, [({int(size) for size in allowed.split(" or ")}, int(taken))
                      for allowed, taken in re.findall(
                          r"lost: chunk size (.*)\nthe server took (\d+)\n", told)]

    def test_a_tighter_bound_allows_fewer_chunk_sizes_and_the_best_is_taken(self):
        told, asked = self.picked("--quality_loss_max", "0", "0.02", "0.1")
        self.assertEqual(asked, [({4}, 4), ({4, 8}, 4), ({4, 8, 16}, 4)])
        self.assertRegex(told, r"accuracy, higher is better\n")
        self.assertRegex(told, r"\n +16 +[\d,]+ +0.9200 +8.0%\n")
        self.assertEqual(len(re.findall(r"\[\d+ prompt tokens, [\d,]+ KV bytes; a dense", told)), 3)

    def test_where_memory_is_short_the_server_stays_within_the_bound(self):
        stack = json.loads((MODEL / "config.json").read_text())["decoder"]
        page = 16 * stack["n_layer"] * 2 * stack["n_local_heads"] * stack["head_dim"] * 2
        short = f"--kv_bytes_max={2 * page}"  # too little for the passages at C = 4
        _, [(allowed, taken)] = self.picked("--quality_loss_max=0.1", short)
        self.assertIn(taken, allowed - {4})
        _, told = self.run_example("passages.py", *self.ASKED, "--quality_loss_max=0", short,
                                   code=1)
        self.assertRegex(told, r"refused: .*kv_bytes_max \d+ is less than the \d+ bytes")

    def test_a_bound_that_is_refused_ended_the_others(self):
        told, refused = self.run_example(
            "passages.py", *self.ASKED, "--quality_loss_max", "2", "0.1", "nan", "0")
        self.assertEqual(told.count("the server took"), 2)
        self.assertEqual(refused.count("refused: INVALID_ARGUMENT: budget.auto.quality_loss"), 2)

    def test_what_is_empty_or_zero_is_not_what_is_left_away(self):
        _, told = self.run_example("passages.py", *self.ASKED, "--kv_bytes_max=0", code=1)
        self.assertIn("kv_bytes_max 0 is out of range", told)
        _, told = self.run_example("passages.py", *self.ASKED, "--quality_task=", code=2)
        self.assertIn("was not measured at , but at: recall, text", told)

    def test_another_kind_of_task_has_another_best(self):
        _, asked = self.picked("--quality_task=text", "--quality_loss_max", "0.05")
        self.assertEqual(asked, [({16, 32}, 16)])
        _, told = self.run_example("passages.py", *self.ASKED, "--quality_task=sums", code=2)
        self.assertIn("not measured at sums, but at: recall, text", told)

    def test_a_bound_that_is_none_is_refused_by_its_name(self):
        _, told = self.run_example("passages.py", *self.ASKED, "--quality_loss_max=2", code=1)
        self.assertIn("INVALID_ARGUMENT: budget.auto.quality_loss_max", told)
        _, told = self.run_example("passages.py", "Why?", "no/such/passage", code=2)
        self.assertIn("cannot read the passages: [Errno 2]", told)


class Readme(Examples):
    def test_its_commands_work_as_they_stand(self):
        commands = re.findall(r"^examples/(.+)$", (EXAMPLES / "README.md").read_text(), re.M)
        self.assertEqual({c.split()[0] for c in commands},
                         {p.name for p in EXAMPLES.glob("*.py")} - {"common.py"})
        for command in commands:
            name, *words = shlex.split(command)
            arguments = [sorted(map(str, ROOT.glob(w))) if "*" in w else [w] for w in words]
            self.run_example(name, *sum(arguments, []))


if __name__ == "__main__":
    os.environ["CATSERVE_BUILD"] = sys.argv.pop(1)
    unittest.main()
