"""What every experiment needs: a server of its own, load on it, figures with their spread."""

import dataclasses
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE_ENTRIES = 16
START_SECONDS = 120  # loading a checkpoint on a busy machine
STOP_SECONDS = 20
RUN_SECONDS = 1800  # the longest that one run of the load may take
LOG_BYTES = 2000  # of the server's log, shown when it does not start


class BenchError(Exception):
    """Something outside of this script failed; the message says what."""


def say(text):
    print(text, file=sys.stderr, flush=True)


class Bench:
    """The programs of one build, and a place for checkpoints and scratch files."""

    def __init__(self, build, quick):
        self.build = pathlib.Path(build).resolve()
        self.quick = quick
        self.models = ROOT / "build" / "bench_models"
        self.commands = []  # every serve_load and engine_bench that ran, for the record
        for program in ("server/catserved", "bench/serve_load", "bench/write_checkpoint"):
            if not (self.build / program).is_file():
                raise BenchError(f"{self.build / program} is missing: run make build first")

    def model(self, name):
        """The directory of a shipped model or of a shape with random weights."""
        if (ROOT / "models" / name / "config.json").is_file():
            return ROOT / "models" / name
        directory = self.models / name
        if not (directory / "config.json").is_file():
            say(f"writing random weights of {name}")
        subprocess.run([self.build / "bench/write_checkpoint", name, directory], check=True)
        return directory

    def load(self, server, *flags):
        """Runs serve_load on `server`; its JSON."""
        with tempfile.TemporaryDirectory() as work:
            path = pathlib.Path(work) / "load.json"
            command = [str(self.build / "bench/serve_load"), f"--server={server.address}",
                       *flags, f"--json={path}"]
            self.commands.append("serve_load " + " ".join(flags))
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False,
                                  timeout=RUN_SECONDS)
            if done.returncode != 0:
                raise BenchError(f"serve_load ended with {done.returncode}: {' '.join(command)}")
            return json.loads(path.read_text())

    def start_load(self, server, path, *flags):
        """The same beside others: a process to wait for; its JSON will be in `path`."""
        self.commands.append("serve_load " + " ".join(flags))
        return subprocess.Popen([str(self.build / "bench/serve_load"),
                                 f"--server={server.address}", *flags, f"--json={path}"],
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


class Server:
    """catserved on ports that the system chose; ended with the block, and nothing else with it."""

    def __init__(self, bench, model, **flags):
        self.bench = bench
        self.name = model
        self.flags = [f"--{key}={value}" for key, value in flags.items()]
        self.work = tempfile.TemporaryDirectory()
        self.address = None
        self.process = None

    def __enter__(self):
        directory = self.bench.model(self.name)
        folder = pathlib.Path(self.work.name)
        self.log = folder / "log"
        port = folder / "port"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [self.bench.build / "server/catserved", f"--model={directory}",
                 "--listen_address=127.0.0.1:0", "--metrics_address=",
                 f"--port_file={port}", "--drain_seconds=0", *self.flags], stderr=log)
        try:
            self.wait_until_serving()
        except BaseException:
            self.__exit__()
            raise
        self.address = f"127.0.0.1:{port.read_text().strip()}"
        return self

    def wait_until_serving(self):
        deadline = time.monotonic() + START_SECONDS
        while b"event=serving" not in self.log.read_bytes():
            if self.process.poll() is not None or time.monotonic() > deadline:
                tail = self.log.read_bytes()[-LOG_BYTES:].decode(errors="replace")
                raise BenchError(f"catserved did not start on {self.name}:\n{tail}")
            time.sleep(0.05)

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.work.cleanup()


@dataclasses.dataclass
class Figure:
    """One measured value: the median of its runs."""
    name: str
    unit: str
    runs: list
    note: str = ""

    @property
    def value(self):
        return statistics.median(self.runs)

    def as_json(self):
        return {"name": self.name, "value": self.value, "unit": self.unit, "runs": self.runs,
                "low": min(self.runs), "high": max(self.runs), "note": self.note}


def entry_bytes(bench, model):
    """Bytes of one entry of KV memory in BF16."""
    stack = json.loads((bench.model(model) / "config.json").read_text())["decoder"]
    return stack["n_layer"] * 2 * stack["n_local_heads"] * stack["head_dim"] * 2


def pages_for(entries):
    return -(-entries // PAGE_ENTRIES)


def peak_pages(tokens, chunk_size):
    """Pages that a sequence of `tokens` tokens holds at most by the formula n/C + C + 1 entries."""
    return pages_for(tokens // chunk_size + chunk_size + 1 if chunk_size else tokens)


def held_pages(tokens, chunk_size):
    """Pages that it comes to hold indeed: the last token drawn never enters the memory."""
    if not chunk_size:
        return pages_for(tokens - 1)
    return pages_for(max(n // chunk_size + 2 + n % chunk_size
                         for n in range(max(1, tokens - 2 * chunk_size), tokens)))


def live_window(calls, skip=0):
    """From when every call has `skip` + 1 tokens to the first call's last token; maybe empty."""
    return (max(call["token_times"][skip] for call in calls),
            min(call["token_times"][-1] for call in calls))


def tokens_within(calls, start, end):
    return sum(start < at <= end for call in calls for at in call["token_times"])


def percentile(values, percent):
    """By nearest rank, as serve_load takes it."""
    values = sorted(values)
    return values[max(0, -(-len(values) * percent // 100) - 1)]


def gaps_ms(calls, start, end):
    """Between one token and the next of each call, for tokens that came within the window."""
    return [1e3 * (b - a) for call in calls
            for a, b in zip(call["token_times"], call["token_times"][1:]) if start < b <= end]


def machine():
    text = pathlib.Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*: (.*)$", text, re.M)
    memory = re.search(r"^MemTotal:\s+(\d+)", pathlib.Path("/proc/meminfo").read_text(), re.M)
    return {"cpu": model.group(1) if model else "unknown", "cores": os.cpu_count(),
            "memory_gib": round(int(memory.group(1)) / 2**20) if memory else None}


def commit():
    done = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, text=True,
                          capture_output=True, check=False)
    return done.stdout.strip() or "unknown"


def load_average():
    return os.getloadavg()[0]
