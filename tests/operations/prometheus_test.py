#!/usr/bin/env python3
"""A real Prometheus scrapes the real server under load, and every metric is compared with what the
load generator counted itself.

    tests/operations/prometheus_test.py BUILD_DIR PROMETHEUS_DIR

PROMETHEUS_DIR holds prometheus and promtool (tools/install_prometheus.sh prints it). What is
checked is read from Prometheus alone, so without a scrape nothing passes.
"""

import collections
import json
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.parse
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
# pylint: disable=wrong-import-position
from serve_bench import harness

MODEL = "text"
SLOTS, QUEUE = 4, 16
CODES = {0: "OK", 1: "CANCELLED", 8: "RESOURCE_EXHAUSTED"}
PATIENCE_SECONDS = 120  # for what is to happen at all; what is checked never depends on it
SUFFIXES = {"histogram": ("_bucket", "_count", "_sum")}
BUILD, PROGRAMS = None, None


class Prometheus:
    """On a free port, scraping one target twice a second into a folder of its own."""

    def __init__(self, target):
        self.moment = {}
        self.work = tempfile.TemporaryDirectory()
        folder = pathlib.Path(self.work.name)
        (folder / "prometheus.yml").write_text(json.dumps({
            "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms"},
            "scrape_configs": [{"job_name": "catserve",
                                "static_configs": [{"targets": [target]}]}]}))
        for _ in range(5):  # a port that was free may be taken by now
            self.address = f"127.0.0.1:{free_port()}"
            with open(folder / "log", "wb") as log:
                self.process = subprocess.Popen(
                    [PROGRAMS / "prometheus", f"--config.file={folder}/prometheus.yml",
                     f"--storage.tsdb.path={folder}/data",
                     f"--web.listen-address={self.address}"], stdout=log, stderr=log)
            if self.becomes_ready():
                return
            self.close()
        raise AssertionError((folder / "log").read_text()[-2000:])

    def becomes_ready(self):
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.process.poll() is None and time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=5):
                    return True
            except OSError:
                time.sleep(0.05)
        return False

    def close(self):
        self.process.terminate()
        self.process.wait()

    def ask(self, path, **parameters):
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]

    def query(self, expression):
        """What an instant query finds when it settled, before that now: (labels, value) pairs."""
        result = self.ask("query", query=expression, **self.moment)["result"]
        return [(item["metric"], float(item["value"][1])) for item in result]

    def value(self, expression):
        """Of an expression with one result."""
        found = self.query(expression)
        assert len(found) == 1, f"{expression} gives {found}"
        return found[0][1]

    def by(self, label, name):
        """Values of a metric by one label; what is zero is left out."""
        return {item[label]: value for item, value in self.query(f"sum by ({label}) ({name})")
                if value}

    def await_true(self, expression):
        """Waits until the expression has a result."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self.query(expression):
            assert time.monotonic() < deadline, f"never came true: {expression}"
            time.sleep(0.05)

    def settle(self):
        """Waits until a scrape that began after this call was taken in; it is what queries find."""
        taken = f"timestamp(up) > {time.time():.3f} and up == 1"
        self.await_true(taken)
        self.moment = {"time": self.value(taken)}


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def documented():
    """Names and types of the table in docs/operations.md."""
    text = (ROOT / "docs/operations.md").read_text()
    return dict(re.findall(r"^\| `(catserve_\w+)` \| (\w+) \|", text, re.M))


def sums(calls, key, amount):
    """Sums of amount(call) by key(call), as Prometheus labels them; zeros are left out."""
    found = collections.Counter()
    for call in calls:
        found[str(key(call))] += amount(call)
    return {name: value for name, value in found.items() if value}


def chunks_of(call):
    """Chunks that a call at one chunk size has compressed: those of the tokens read, the last token
    drawn not among them, without those found in the cache."""
    tokens = call["prompt_tokens"] + len(call["token_times"]) - 1
    return tokens // call["chunk_size"] - call["cached_tokens"] // call["chunk_size"]


class UnderLoad(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.bench = harness.Bench(BUILD, quick=True)
        cls.server = harness.Server(cls.bench, MODEL, metrics_address="127.0.0.1:0", slots=SLOTS,
                                    queue_requests_max=QUEUE)
        cls.addClassCleanup(cls.server.__exit__)
        cls.server.__enter__()
        port = (pathlib.Path(cls.server.work.name) / "port.metrics").read_text().strip()
        cls.page = f"127.0.0.1:{port}"
        cls.prometheus = Prometheus(cls.page)
        cls.addClassCleanup(cls.prometheus.close)
        cls.prometheus.await_true("up == 1")
        cls.runs = []
        cls.offer_everything()
        cls.prometheus.await_true("catserve_running_requests == 0 and catserve_kv_pages_used == 0")
        cls.prometheus.settle()

    @classmethod
    def offer_everything(cls):
        """Requests that end well, that are cancelled, that are refused: then the server rests."""
        cls.run_load("--concurrency=5", "--requests=48", "--lengths=96:24,200:40,33:16",
                     "--budgets=4:0.25,16:0.25,32:0.25,auto:0.25", "--shared_prefix=32")
        cls.whole = cls.runs[0]["calls"]
        cls.run_load("--concurrency=4", "--requests=24", "--lengths=64:200", "--budgets=8",
                     "--cancel_share=0.5", "--seed=2")
        cls.run_load("--rate=5000", "--duration_seconds=0.1", "--requests=60", "--lengths=200:60",
                     "--budgets=16", "--seed=3")
        cls.calls = [call for run in cls.runs for call in run["calls"]]
        cls.catctl("generate", "--chunk_size=7", "--token_ids=1,2", expect=1)
        cls.catctl("score", "--chunk_size=8", "--file=-")
        while not cls.prometheus.query("max_over_time(catserve_kv_used_bytes[1h]) > 0"):
            cls.run_load("--concurrency=4", "--requests=24", "--lengths=64:200")  # unseen as yet
            cls.calls += cls.runs[-1]["calls"]

    @classmethod
    def run_load(cls, *flags):
        cls.runs.append(cls.bench.load(cls.server, "--record_calls", "--duration_seconds=300",
                                       *flags))

    @classmethod
    def catctl(cls, *args, expect=0):
        done = subprocess.run([BUILD / "server/catctl", f"--server={cls.server.address}", *args],
                              input="Once upon a time there was a cat that compressed chunks.",
                              text=True, capture_output=True, check=False)
        assert done.returncode == expect, done.stderr

    def check(self, expression, value):
        self.assertEqual(self.prometheus.value(expression), value, expression)

    def test_the_load_was_what_it_should_be(self):
        codes = collections.Counter(CODES[call["code"]] for call in self.calls)
        for code in CODES.values():
            self.assertGreater(codes[code], 0)
        self.assertEqual([call["code"] for call in self.whole], [0] * len(self.whole))
        self.assertGreater(sum(call["cached_tokens"] for call in self.whole), 0)

    def test_requests_by_method_and_code(self):
        codes = collections.Counter(CODES[call["code"]] for call in self.calls)
        counted = self.prometheus.by("code", 'catserve_requests_total{method="Generate"}')
        # A client that cancels does not learn whether the server had ended before it heard of it.
        self.assertEqual(counted.get("OK", 0) + counted["CANCELLED"],
                         codes["OK"] + codes["CANCELLED"])
        self.assertLessEqual(counted["CANCELLED"], codes["CANCELLED"])
        self.assertEqual(counted["RESOURCE_EXHAUSTED"], codes["RESOURCE_EXHAUSTED"])
        self.assertEqual(counted["INVALID_ARGUMENT"], 1)
        self.assertEqual(len(counted), 4)
        polls = sum(len(run["samples"]) for run in self.runs)
        self.check('catserve_requests_total{method="GetLoad",code="OK"}', polls)
        self.check('catserve_requests_total{method="Score",code="OK"}', 1)
        reasons = self.prometheus.by("reason", "catserve_choices_finished_total")
        self.assertEqual(set(reasons), {"length", "aborted"})
        self.assertEqual(sum(reasons.values()), counted["OK"] + counted["CANCELLED"])
        self.assertGreaterEqual(reasons["length"], counted["OK"])  # and cancelled at its very end

    def test_tokens_by_chunk_size(self):
        served = [call for call in self.calls if CODES[call["code"]] != "RESOURCE_EXHAUSTED"]
        prompts = sums(served, lambda c: c["chunk_size"], lambda c: c["prompt_tokens"])
        cached = sums(served, lambda c: c["chunk_size"], lambda c: c["cached_tokens"])
        drawn = sums(served, lambda c: c["chunk_size"], lambda c: len(c["token_times"]))
        self.check("catserve_prefix_cache_query_tokens_total", sum(prompts.values()))
        counted = self.prometheus.by("chunk_size", "catserve_prompt_tokens_total")
        self.assertGreater(counted["8"], prompts["8"])  # the text that was scored
        self.assertEqual({**counted, "8": prompts["8"]}, prompts)
        self.assertEqual(self.prometheus.by("chunk_size", "catserve_cached_prompt_tokens_total"),
                         cached)
        self.check("catserve_prefix_cache_hit_tokens_total", sum(cached.values()))
        counted = self.prometheus.by("chunk_size", "catserve_generated_tokens_total")
        self.assertGreaterEqual(counted["8"], drawn["8"])  # drawn before a cancel was heard of
        self.assertEqual({**counted, "8": drawn["8"]}, drawn)

    def test_times(self):
        served = [call for call in self.calls if call["token_times"]]
        generate = '{method="Generate"}'
        self.check("catserve_time_to_first_token_seconds_count", len(served))
        for part in ("queue", "prefill", "decode", "request"):
            self.check(f"catserve_{part}_seconds_count{generate}", len(served))
            self.check(f'catserve_{part}_seconds_count{{method="Score"}}', 1)
        tokens = self.prometheus.value("sum(catserve_generated_tokens_total)")
        self.check("catserve_inter_token_seconds_count", tokens - len(served))
        # What the server measures lies within what its client does.
        first = sum(call["token_times"][0] - call["arrival"] for call in served)
        self.assertLess(self.prometheus.value("catserve_time_to_first_token_seconds_sum"), first)
        whole = sum(call["end"] - call["arrival"] for call in served)
        seconds = {part: self.prometheus.value(f"catserve_{part}_seconds_sum{generate}")
                   for part in ("queue", "prefill", "decode", "request")}
        # The server hears of a cancel later than its client's clock stops: by less than a second.
        cancelled = sum(CODES[call["code"]] == "CANCELLED" for call in served)
        self.assertLess(seconds["request"], whole + cancelled)
        self.assertLessEqual(seconds["queue"] + seconds["prefill"] + seconds["decode"],
                             seconds["request"])

    def test_steps_and_chunks(self):
        changed = sum(call["budget_changes"] for call in self.calls)
        self.check("sum(catserve_budget_changes_total)", changed)
        last = self.runs[-1]["summary"]
        self.check("catserve_preemptions_total",
                   sum(run["summary"]["preemptions"] for run in self.runs))
        self.assertEqual(changed, 0, "more memory than the load needs, so nobody bends")
        exact = [c for c in self.calls if c["code"] == 0]
        self.assertGreaterEqual(self.prometheus.value("catserve_chunks_compressed_total"),
                                sum(chunks_of(call) for call in exact))
        self.check("catserve_step_rows_count - catserve_steps_total", 0)
        self.check("catserve_step_rows_sum - catserve_decoder_rows_total", 0)
        parts = self.prometheus.by("part", "catserve_step_seconds_total")
        self.assertEqual(set(parts), {"plan", "prepare", "compress", "decode", "sample", "wait",
                                      "commit"})
        self.check("catserve_kv_pages_capacity", last["kv_pages_total"])

    def test_at_rest_nothing_is_held(self):
        for name in ("running_requests", "waiting_requests", "paused_requests", "kv_pages_used",
                     "kv_usage_ratio", "kv_used_bytes", "kv_dense_twin_bytes",
                     "kv_dense_same_width_bytes", "live_tokens"):
            self.check(f"catserve_{name}", 0)
        self.assertGreater(self.prometheus.value("catserve_kv_pages_cached"), 0)
        self.check("catserve_ready", 1)
        self.check("catserve_waiting_requests_capacity", QUEUE)

    def test_the_model_and_the_program_are_named(self):
        model = self.runs[0]["model"]
        labels, value = self.prometheus.query("catserve_model_info")[0]
        self.assertEqual(value, 1)
        self.assertEqual(labels["name"], model["name"])
        self.assertEqual(labels["kind"], model["kind"])
        self.assertEqual(labels["parameters"], str(model["parameters"]))
        self.assertEqual(labels["context_limit"], str(model["context_limit"]))
        self.assertEqual(self.prometheus.query("catserve_build_info")[0][0]["engine"],
                         model["engine"])

    def test_prometheus_holds_what_the_documentation_lists(self):
        wanted = {name + suffix for name, kind in documented().items()
                  for suffix in SUFFIXES.get(kind, ("",))}
        names = self.prometheus.ask("label/__name__/values")
        self.assertEqual({name for name in names if name.startswith("catserve_")}, wanted)

    def test_the_queries_of_the_documentation_find_something(self):
        text = (ROOT / "docs/operations.md").read_text()
        queries = [line for block in re.findall(r"```promql\n(.*?)```", text, re.S)
                   for line in block.splitlines() if line and not line.startswith("#")]
        self.assertGreater(len(queries), 5)
        for query in queries:
            self.assertTrue(self.prometheus.query(query), query)

    def test_promtool_has_nothing_to_say(self):
        with urllib.request.urlopen(f"http://{self.page}/metrics", timeout=10) as answer:
            page = answer.read()
        done = subprocess.run([PROGRAMS / "promtool", "check", "metrics"], input=page,
                              capture_output=True, check=False)
        self.assertEqual((done.returncode, done.stdout + done.stderr), (0, b""))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    PROGRAMS = pathlib.Path(sys.argv.pop()).resolve()
    BUILD = pathlib.Path(sys.argv.pop()).resolve()
    unittest.main()
