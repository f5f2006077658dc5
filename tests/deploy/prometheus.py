"""Debian's Prometheus, run on this machine, and the table of our metrics."""

import contextlib
import functools
import json
import pathlib
import re
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

import chart

PROGRAMS = chart.ROOT / ".cache/prometheus/usr/bin"  # tools/install_prometheus.sh
PROMETHEUS = PROGRAMS / "prometheus"
PROMTOOL = PROGRAMS / "promtool"
PATIENCE_SECONDS = 60


@functools.cache
def version():
    done = subprocess.run([PROMTOOL, "--version"], text=True, capture_output=True, check=True)
    return re.search(r"version (\S+)", done.stdout)[1]


@functools.cache
def documented_metrics():
    """Names in the table of docs/operations.md, a histogram's series under their own names."""
    text = (chart.ROOT / "docs/operations.md").read_text()
    names = set()
    for name, kind in re.findall(r"^\| `(catserve_\w+)` \| (\w+) \|", text, re.M):
        series = {"histogram": ("_bucket", "_sum", "_count")}.get(kind, ("",))
        names |= {name + suffix for suffix in series}
    return names


def metrics_in(expression):
    """Names of our metrics in an expression; recorded ones, which have colons, left out."""
    return set(re.findall(r"(?<![:\w])catserve_\w+(?!:|\w)", expression))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Prometheus:
    """Scrapes one server every second under the job `catserve`, and evaluates rules."""

    def __init__(self, target, rules):
        self._folder = tempfile.TemporaryDirectory()
        folder = pathlib.Path(self._folder.name)
        config = {"global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                  "rule_files": [str(rules)],
                  "scrape_configs": [{"job_name": "catserve",
                                      "static_configs": [{"targets": [target]}]}]}
        (folder / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
        address = f"127.0.0.1:{free_port()}"
        self._url = f"http://{address}/api/v1/"
        self._log = open(folder / "log", "w", encoding="utf-8")
        self._process = subprocess.Popen(
            [PROMETHEUS, f"--config.file={folder}/prometheus.yml",
             f"--web.listen-address={address}", f"--storage.tsdb.path={folder}/data"],
            stderr=self._log)

    def __enter__(self):
        self.wait_for("up == 1")
        return self

    def __exit__(self, *_):
        self._process.terminate()
        self._process.wait()
        self._log.close()
        self._folder.cleanup()

    def ask(self, path, **parameters):
        """The result of an API call."""
        url = self._url + path + "?" + urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(url) as reply:
            return json.load(reply)["data"]["result"]

    def at(self, moment, expression):
        """Labels (as a sorted tuple) to value, at a time."""
        return {tuple(sorted(s["metric"].items())): float(s["value"][1])
                for s in self.ask("query", query=expression, time=moment)}

    def samples(self, expression, start, end):
        """Values of all series between two times, one a second; NaN (0/0 when idle) left out."""
        result = self.ask("query_range", query=expression, start=start, end=end, step=1)
        values = [float(v) for series in result for _, v in series["values"]]
        return [v for v in values if v == v]

    def wait_for(self, condition):
        """Until a condition holds; gives up after a long time. Returns the moment."""
        for _ in range(PATIENCE_SECONDS * 5):
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                moment = time.time()
                if self.at(moment, condition):
                    return moment
            time.sleep(0.2)
        raise TimeoutError(f"not seen: {condition}; prometheus: "
                           f"{pathlib.Path(self._log.name).read_text()[-2000:]}")
