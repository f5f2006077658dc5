"""Grafana's dashboard: as it is made, on metrics that exist, and every query answered with the
right numbers by a real Prometheus that watched a real server under load."""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import unittest

import chart
import prometheus
import yaml
from catserved import Server
from report import validated

sys.path.insert(0, str(chart.ROOT / "tools"))
import make_dashboard  # noqa: E402

FILE = chart.CHART / "files/dashboard.json"
RULES = chart.CHART / "files/rules.yaml"
PROMPT_TOKENS, GENERATED_TOKENS = 64, 48


def ready(query):
    """A panel's query as Grafana would send it."""
    expression = make_dashboard.expression(query)
    return expression.replace("$job", "catserve").replace("$__rate_interval", "30s")


def counted(query):
    """A query of rates with the counts themselves in their place."""
    return re.sub(r"rate\(([^()\[]+)\[30s\]\)", r"\1", ready(query))


class Dashboard(unittest.TestCase):
    def test_the_file_is_what_its_maker_makes(self):
        self.assertEqual(FILE.read_text(), make_dashboard.text(),
                         "tools/check_deploy.sh --write makes it anew")
        validated(f"dashboard of {len(make_dashboard.panels())} panels",
                  "Grafana's own builders (grafana-foundation-sdk)")

    def test_it_asks_for_metrics_that_exist(self):
        queries = " ".join(ready(q) for p in make_dashboard.panels() for q in p.queries.values())
        self.assertEqual(prometheus.metrics_in(queries) - prometheus.documented_metrics(), set())

    def test_runbooks_name_panels_that_exist(self):
        text = (chart.ROOT / "docs/runbooks.md").read_text().replace("\n", " ")
        named = set(re.findall(r"[Pp]anel \*([^*]+)\*", text))
        self.assertTrue(named)
        self.assertEqual(named - {panel.title for panel in make_dashboard.panels()}, set())


class UnderLoad(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.programs = pathlib.Path(os.environ["CATSERVE_BUILD"])
        cls.server = cls.enterClassContext(Server("--slots=4", "--kv_memory_bytes=1048576",
                                                  "--queue_requests_max=40"))
        cls.prometheus = cls.enterClassContext(
            prometheus.Prometheus(cls.server.metrics_address, RULES))
        cls.start = time.time()
        cls.load = cls.drive()
        cls.finished = cls.load["finished"]
        # All of it is counted now; what comes later does not change the answers at this moment.
        cls.settled = cls.prometheus.wait_for(
            f'sum(catserve_requests_total{{method="Generate"}}) == {cls.finished + 1}')
        cls.keep_busy()
        cls.end = time.time()

    @classmethod
    def drive(cls):
        """serve_load's summary; and one request that is refused."""
        subprocess.run([cls.programs / "server/catctl", "generate",
                        f"--server={cls.server.address}",
                        "--chunk_size=5", "x"], capture_output=True, check=False)
        with tempfile.TemporaryDirectory() as folder:
            result = pathlib.Path(folder) / "result.json"
            subprocess.run(
                [cls.programs / "bench/serve_load", f"--server={cls.server.address}", "--rate=12",
                 "--requests=72", f"--lengths={PROMPT_TOKENS}:{GENERATED_TOKENS}",
                 "--shared_prefix=32", "--budgets=4:0.2,8:0.3,32:0.5", f"--json={result}"],
                check=True, capture_output=True)
            return json.loads(result.read_text())["summary"]

    @classmethod
    def keep_busy(cls):
        """Runs long sequences until Prometheus has seen them in memory."""
        with subprocess.Popen(
                [cls.programs / "bench/serve_load", f"--server={cls.server.address}",
                 "--concurrency=4", "--duration_seconds=120", "--lengths=256:200",
                 "--budgets=16:1"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as load:
            try:
                # A scrape, and an evaluation of the rules after it; with the second, who asks at
                # seconds counted from elsewhere finds one too.
                ratio = "job:catserve_kv_dense_twin_over_used:ratio"
                cls.prometheus.wait_for(f"count_over_time(({ratio} > 0)[10m:1s]) > 1")
            finally:
                load.kill()

    def value(self, title, legend, **labels):
        """What a panel's query counts, for one series."""
        panel = next(p for p in make_dashboard.panels() if p.title == title)
        found = self.prometheus.at(self.settled, counted(panel.queries[legend]))
        return found.get(tuple(sorted((k, str(v)) for k, v in labels.items())))

    def test_every_query_returns_data(self):
        queries = [(p.title, q) for p in make_dashboard.panels() for q in p.queries.values()]
        for title, query in queries:
            with self.subTest(panel=title, query=ready(query)):
                self.assertTrue(self.prometheus.samples(ready(query), self.start, self.end))
        validated(f"{len(queries)} queries of the dashboard return data of a real load",
                  f"Prometheus {prometheus.version()}")

    def test_tokens_and_calls_are_those_that_were_sent(self):
        self.assertEqual(self.load["finished"], 72)
        method = {"method": "Generate"}
        self.assertEqual(self.value("Calls by method", "{{method}}", **method), self.finished + 1)
        self.assertEqual(self.value("Calls by code", "{{code}}", code="INVALID_ARGUMENT"), 1)
        self.assertEqual(self.value("Endings of choices", "{{reason}}", reason="length"),
                         self.finished)
        self.assertEqual(self.value("Tokens", "prompt"), self.finished * PROMPT_TOKENS)
        self.assertEqual(self.value("Tokens", "generated"), self.finished * GENERATED_TOKENS)
        validated("numbers of calls, endings and tokens", "against what serve_load sent")

    def test_chunk_sizes_are_those_that_were_asked_for(self):
        sizes = self.load["chunk_sizes"]
        self.assertEqual(set(sizes), {"4", "8", "32"})
        for size, requests in sizes.items():
            self.assertEqual(
                self.value("Tokens by chunk size", "C = {{chunk_size}}", chunk_size=size),
                requests * GENERATED_TOKENS)
            self.assertEqual(
                self.value("Prompt tokens by chunk size", "C = {{chunk_size}}", chunk_size=size),
                requests * PROMPT_TOKENS)
        validated("numbers of tokens by chunk size", "against what serve_load saw")

    def test_gauges_say_what_the_server_was_told(self):
        self.assertEqual(self.value("Ready servers", "ready"), 1)
        room = self.value("Queue", "room of {{instance}}", instance=self.server.metrics_address)
        self.assertEqual(room, 40)
        self.assertEqual(self.value("Pages", "capacity"), self.load["kv_pages_total"])
        found = self.value("Prefix cache", "found")
        self.assertAlmostEqual(
            found, self.load["cached_tokens"] / (self.finished * PROMPT_TOKENS))
        validated("gauges and the prefix cache's share", "against flags and serve_load")

    def test_compression_shows(self):
        held, twin = (self.prometheus.samples(ready(make_dashboard.total(metric)), self.start,
                                              self.end)
                      for metric in ("kv_used_bytes", "kv_dense_twin_bytes"))
        self.assertGreater(max(twin), max(held))

    def test_recording_rules_evaluate(self):
        groups = yaml.safe_load(RULES.read_text())["groups"]
        recorded = {r["record"] for g in groups for r in g["rules"] if "record" in r}
        silent = {"job:catserve_requests_failed:ratio_rate5m",  # of what did not happen
                  "job:catserve_requests_refused:ratio_rate5m"}
        for name in sorted(recorded - silent):
            with self.subTest(rule=name):
                self.assertTrue(self.prometheus.samples(name, self.start, time.time()))
        firing = self.prometheus.at(time.time(), 'ALERTS{alertstate="firing"}')
        self.assertEqual(firing, {}, "a server under an ordinary load alarms nobody")


if __name__ == "__main__":
    unittest.main()
