"""The Python client against the real server, and its retries against a scripted one."""

import asyncio
import concurrent.futures
import contextlib
import io
import pathlib
import re
import subprocess
import sys
import tempfile
import textwrap
import unittest

import chart
import client_wheel
import grpc
from catserved import Server, make_secrets
from report import validated

README = chart.ROOT / "clients/python/README.md"
_work = tempfile.TemporaryDirectory()


def setUpModule():
    installed = client_wheel.install(_work.name)
    sys.path.insert(0, str(installed))
    global catserve, generation, pb
    import catserve
    from catserve.v1 import generation_pb2 as pb
    from catserve.v1 import generation_pb2_grpc as generation


def tearDownModule():
    _work.cleanup()


class AgainstTheServer(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server("--slots=1", "--queue_requests_max=1", "--kv_memory_bytes=4194304")
        cls.enterClassContext(cls.server)
        cls.client = cls.enterClassContext(catserve.Client(cls.server.address))

    def test_the_readme_example_streams_text(self):
        example = re.search(r"```python\n(.*?)```", README.read_text(), re.S)[1]
        self.assertEqual(len([line for line in example.splitlines() if line]), 6)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(example.replace("127.0.0.1:8500", self.server.address), {})
        answer = self.client.complete("In the beginning", chunk_size=8, max_tokens=32, seed=7)
        self.assertEqual(printed.getvalue(), f"text\n{answer.text}")
        self.assertGreater(len(answer.text), 20)
        validated("the six lines of the Python client's README", "catserved, over a real socket")

    def test_the_readmes_async_example_runs_as_it_stands(self):
        example = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)[1]
        code = textwrap.dedent(example).replace("127.0.0.1:8500", self.server.address)
        done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True,
                              env={"PYTHONPATH": sys.path[0]}, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stdout, r"\d+\n\Z")

    def test_events_come_in_order_with_their_usage(self):
        events = list(self.client.generate("In the beginning", chunk_size=4, max_tokens=9, n=1,
                                           seed=3, temperature=0.5, logprobs=2, ignore_eos=True))
        kinds = [type(event) for event in events]
        self.assertEqual(kinds[0], catserve.Started)
        self.assertEqual(kinds[-2:], [catserve.ChoiceFinished, catserve.Finished])
        tokens = [e for e in events if isinstance(e, catserve.Tokens)]
        self.assertEqual(sum(len(t.token_ids) for t in tokens), 9)
        self.assertEqual([len(i.top) for t in tokens for i in t.info], [2] * 9)
        finished = events[-1]
        self.assertEqual(finished.reason, catserve.FinishReason.LENGTH)
        self.assertEqual((finished.usage.generated_tokens, finished.usage.chunk_size), (9, 4))
        self.assertGreater(finished.usage.kv_bytes_dense_twin, 0)

    def test_asyncio_gives_the_same(self):
        async def ask():
            async with catserve.AsyncClient(self.server.address) as client:
                answer = await client.complete("In the beginning", max_tokens=12, seed=5)
                ids = await client.tokenize("In the beginning")
                return answer, await client.detokenize(ids), (await client.model()).name
        answer, text, name = asyncio.run(ask())
        mine = self.client.complete("In the beginning", max_tokens=12, seed=5)
        self.assertEqual(answer.texts, mine.texts)
        self.assertEqual((text, name), ("In the beginning", self.client.model().name))

    def test_score_equals_what_generate_reported(self):
        events = list(self.client.generate([5, 9, 12, 7], chunk_size=8, max_tokens=4, seed=1,
                                           logprobs=0, ignore_eos=True))
        drawn = [i for e in events if isinstance(e, catserve.Tokens) for i in e.info]
        scores = self.client.score([5, 9, 12, 7] + [i.token_id for i in drawn], chunk_size=8)
        self.assertEqual([i.logprob for i in scores.tokens[3:]], [i.logprob for i in drawn])

    def test_a_bad_request_names_its_field(self):
        with self.assertRaises(catserve.CatserveError) as refused:
            self.client.complete("x", chunk_size=5)
        self.assertEqual(refused.exception.code, grpc.StatusCode.INVALID_ARGUMENT)
        self.assertIn("budget.chunk_size", refused.exception.message)
        with self.assertRaisesRegex(TypeError, "chunksize"):
            self.client.complete("x", chunksize=5)
        with self.assertRaisesRegex(ValueError, "either"):
            self.client.complete("x", chunk_size=4, kv_bytes_max=5)
        with self.assertRaisesRegex(ValueError, "seed: "):
            self.client.complete("x", seed=-1)
        with self.assertRaisesRegex(TypeError, "top_k: "):
            self.client.complete("x", top_k="many")

    def test_a_budget_may_be_bounded_by_measured_quality(self):
        task = self.client.model().quality_tasks[0]
        best = {value.chunk_size for value in task.values if value.loss == 0}
        answer = self.client.complete("In the beginning", quality_loss_max=0, max_tokens=1,
                                      quality_task=task.name)
        self.assertIn(answer.usage.chunk_size, best)
        with self.assertRaises(catserve.CatserveError) as refused:
            self.client.complete("x", quality_task="guessing")
        self.assertIn("budget.auto.quality_task", refused.exception.message)
        with self.assertRaisesRegex(ValueError, "either"):
            self.client.complete("x", chunk_size=4, quality_loss_max=0.1)

    def test_leaving_a_stream_frees_the_server(self):
        stream = self.client.generate("In the beginning", max_tokens=400, ignore_eos=True)
        next(stream)
        stream.close()
        # One slot, a queue of one: these pass only when the first is gone.
        self.client.complete("So", max_tokens=1)
        while self.client.load().running_requests:
            pass
        self.assertEqual(self.client.load().kv_pages_used, 0)

    def test_a_crowd_gets_through_a_queue_of_one(self):
        patient = catserve.Retry(attempts=1000)
        with catserve.Client(self.server.address, retry=patient) as client, \
                concurrent.futures.ThreadPoolExecutor(8) as crowd:
            answers = list(crowd.map(
                lambda seed: client.complete("In the", max_tokens=16, seed=seed), range(16)))
        self.assertTrue(all(a.usage.generated_tokens > 0 for a in answers))


class BehindTlsAndTokens(unittest.TestCase):
    def test_only_who_shows_a_token_over_tls_is_let_in(self):
        folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        token = make_secrets(folder)
        (folder / "catserve.yaml").write_text(
            "tls: {certificate_file: tls.crt, key_file: tls.key}\n"
            "access: {tokens_file: tokens.yaml}\n")
        server = self.enterContext(Server(f"--config={folder}/catserve.yaml"))
        address, tls = f"localhost:{server.port}", catserve.Tls(ca_file=f"{folder}/ca.crt")
        with catserve.Client(address, tls=tls, token=token) as client:
            self.assertEqual(client.complete("In the", max_tokens=1).usage.generated_tokens, 1)
        with catserve.Client(address, tls=tls) as stranger:
            with self.assertRaises(catserve.CatserveError) as refused:
                stranger.complete("In the", max_tokens=3)
        self.assertEqual(refused.exception.code, grpc.StatusCode.UNAUTHENTICATED)
        with catserve.Client(address, token=token, retry=catserve.Retry(attempts=1)) as plain:
            with self.assertRaises(catserve.CatserveError) as refused:
                plain.complete("In the", max_tokens=3)
        self.assertIn(f"{address}: a server with TLS needs tls=Tls(ca_file=...)",
                      refused.exception.message)

        async def ask():
            async with catserve.AsyncClient(address, tls=tls, token=token) as client:
                return await client.tokenize("In the")
        self.assertTrue(asyncio.run(ask()))
        validated("the Python client over TLS with a token", "catserved, over a real socket")


class Refusals(unittest.TestCase):
    """A server that refuses as its script says, then answers."""

    def serve(self, *script):
        refusals = list(script)

        class Scripted(generation.GenerationServicer):
            def Generate(self, request, context):
                code, pushback = refusals.pop(0) if refusals else (None, None)
                if code is None:
                    yield pb.GenerateResponse(started=pb.Started(request_id="r"))
                    yield pb.GenerateResponse(finished=pb.Finished(reason=pb.FINISH_REASON_STOP))
                    return
                if code == "late":
                    yield pb.GenerateResponse(started=pb.Started(request_id="r"))
                    code = grpc.StatusCode.UNAVAILABLE
                if pushback is not None:
                    context.set_trailing_metadata([("grpc-retry-pushback-ms", str(pushback))])
                context.abort(code, "scripted")

        server = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
        generation.add_GenerationServicer_to_server(Scripted(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        self.addCleanup(server.stop, None)
        return f"127.0.0.1:{port}", refusals

    def ask(self, *script, timeout=None):
        """The waits between attempts, and the error if there was one."""
        address, left = self.serve(*script)
        waits = []
        client = catserve.Client(address)
        self.addCleanup(client.close)
        client._sleep = waits.append
        try:
            client.complete("x", timeout=timeout)
            return waits, None, len(left)
        except catserve.CatserveError as error:
            return waits, error.code, len(left)

    def test_the_servers_word_is_kept_exactly(self):
        full = grpc.StatusCode.RESOURCE_EXHAUSTED
        self.assertEqual(self.ask((full, 1200), (full, 7)), ([1.2, 0.007], None, 0))

    def test_unavailable_without_a_word_waits_longer_each_time(self):
        gone = (grpc.StatusCode.UNAVAILABLE, None)
        waits, error, _ = self.ask(gone, gone, gone)
        self.assertIsNone(error)
        for wait, longest in zip(waits, (0.1, 0.2, 0.4), strict=True):
            self.assertTrue(longest / 2 <= wait <= longest, waits)

    def test_what_would_not_help_is_not_repeated(self):
        full, wrong = grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INVALID_ARGUMENT
        for refusal in ((full, None), (full, -1), (wrong, None)):
            waits, error, _ = self.ask(refusal, (wrong, None))
            self.assertEqual((waits, error), ([], refusal[0]))

    def test_a_stream_that_began_is_never_repeated(self):
        self.assertEqual(self.ask(("late", 5), ("late", 5)),
                         ([], grpc.StatusCode.UNAVAILABLE, 1))

    def test_attempts_end(self):
        full = grpc.StatusCode.RESOURCE_EXHAUSTED
        waits, error, left = self.ask(*[(full, 1)] * 9)
        self.assertEqual((len(waits), error, left), (4, full, 4))

    def test_a_wait_beyond_the_timeout_is_not_begun(self):
        full = grpc.StatusCode.RESOURCE_EXHAUSTED
        self.assertEqual(self.ask((full, 3_600_000), timeout=60), ([], full, 0))

    def test_asyncio_keeps_the_servers_word_too(self):
        address, _ = self.serve((grpc.StatusCode.RESOURCE_EXHAUSTED, 250))
        waits = []

        async def ask():
            async def sleep(seconds):
                waits.append(seconds)
            async with catserve.AsyncClient(address) as client:
                client._sleep = sleep
                return await client.complete("x")
        self.assertEqual(asyncio.run(ask()).texts, [])
        self.assertEqual(waits, [0.25])
        validated("the Python client's retries honour the pushback", "a scripted grpcio server")


class Package(unittest.TestCase):
    def test_a_token_does_not_travel_in_plaintext(self):
        with self.assertRaisesRegex(ValueError, "plaintext"):
            catserve.Client("models.example.com:8500", token="t")
        catserve.Client("127.0.0.1:1", token="t").close()

    def test_every_field_of_the_contract_is_an_option(self):
        def fields(message):
            return {f.name for f in message.DESCRIPTOR.fields}
        known = set(catserve.GenerateOptions.__annotations__)
        request = fields(pb.GenerateRequest) - {"prompt", "budget", "sampling", "stopping"}
        wanted = request | fields(pb.Sampling) | fields(pb.Stopping) | fields(pb.AutoBudget) \
            | {"chunk_size"} | (fields(pb.Prompt) - {"text", "token_ids"})
        self.assertEqual(known, wanted)
        self.assertEqual(set(catserve.Usage.__dataclass_fields__), fields(pb.Usage))

    def test_it_is_typed(self):
        installed = sys.path[0]
        done = subprocess.run(
            [sys.executable, "-m", "mypy", "--cache-dir", chart.ROOT / ".cache/deploy/mypy",
             "--config-file", chart.ROOT / "clients/python/pyproject.toml"],
            cwd=installed, text=True, capture_output=True, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        version = subprocess.run([sys.executable, "-m", "mypy", "--version"], text=True,
                                 capture_output=True, check=True).stdout.split()[1]
        validated("types of the Python client", f"mypy {version}, strict")


if __name__ == "__main__":
    unittest.main()
