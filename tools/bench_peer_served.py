#!/usr/bin/env python3
"""Server against server on this machine: sixteen requests at once, prompts of 512 tokens and 128
generated, to llama.cpp's own server with the dense shape dense-768, and to this one with that shape
and with cat-1536, the CAT that matches it; random weights, by turns, over sockets of this machine.

    .cache/peer/venv/bin/python tools/bench_peer_served.py BUILD_DIR [--rounds N]

Part of make bench-peer. Writes bench/results/peer_served.json and prints a table.
"""

import argparse
import contextlib
import functools
import http.client
import json
import pathlib
import random
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import bench_peer
from serve_bench import harness, streams

RESULT = harness.ROOT / "bench" / "results" / "peer_served.json"
PROMPT, GENERATED, REQUESTS = 512, 128, streams.BATCH
PEER_SIDES = (("F16", 8), ("BF16", 8), ("BF16", 16), ("Q8_0", 8))  # weights, slots
ANSWER_SECONDS = 600  # the longest wait for one event
FIGURES = {"rate": "tokens/s", "first_p50": "first token, median", "first_p95": "p95",
           "gap_p50": "between tokens, median", "gap_p99": "p99"}


class PeerServer:
    """llama-server on a port that the system chose; ended with the block."""

    def __init__(self, model, slots):
        self.command = [bench_peer.PEER / "build/bin/llama-server", "-m", model, "--host",
                        "127.0.0.1", "--port", "0", "-np", str(slots), "-c",
                        str(slots * (PROMPT + GENERATED + 16)), "-b", "2048", "-ub", "512",
                        "-fa", "off", *bench_peer.peer_threads()]
        self.work = tempfile.TemporaryDirectory()
        self.process = None
        self.port = 0

    def __enter__(self):
        log_path = pathlib.Path(self.work.name) / "log"
        with open(log_path, "wb") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log)
        try:
            self.wait_until_serving(log_path)
        except BaseException:
            self.__exit__()
            raise
        return self

    def wait_until_serving(self, log_path):
        deadline = time.monotonic() + harness.START_SECONDS
        while not self.serves(log_path.read_text(errors="replace")):
            if self.process.poll() is not None or time.monotonic() > deadline:
                tail = log_path.read_text(errors="replace")[-harness.LOG_BYTES:]
                raise harness.BenchError(f"llama-server did not start:\n{tail}")
            time.sleep(0.05)

    def serves(self, log):
        listening = re.search(r"listening on http://127\.0\.0\.1:(\d+)", log)
        if listening is None:
            return False
        self.port = int(listening.group(1))
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_SECONDS)
        with contextlib.closing(connection):
            connection.request("GET", "/health")
            return connection.getresponse().status == 200

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(harness.STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.work.cleanup()


def tokens_of(line):
    """How many tokens one line of the peer's event stream brings."""
    if not line.startswith(b"data: "):
        return 0
    event = json.loads(line[len(b"data: "):])
    if "error" in event:
        raise harness.BenchError(f"llama-server answered {event['error']}")
    return len(event["tokens"])


def ask_peer(port, prompt, call):
    """One greedy request; the time of its start and of every token go to `call`."""
    body = json.dumps({"prompt": prompt, "n_predict": GENERATED, "temperature": 0, "stream": True,
                       "ignore_eos": True, "cache_prompt": False, "return_tokens": True})
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS)
    with contextlib.closing(connection):
        call["arrival"] = time.monotonic()
        connection.request("POST", "/completion", body, {"Content-Type": "application/json"})
        for line in connection.getresponse():
            call["token_times"] += [time.monotonic()] * tokens_of(line)


def peer_calls(server):
    """Sixteen requests at once, each with a prompt of its own."""
    drawn = random.Random(1)
    calls = [{"token_times": []} for _ in range(REQUESTS)]
    threads = [threading.Thread(target=ask_peer, args=(
        server.port, [drawn.randrange(3, bench_peer.VOCABULARY) for _ in range(PROMPT)], call))
        for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return calls


def figures_of(calls):
    """What the load saw: tokens/s from the first request to the last token, and times in ms."""
    short = [len(call["token_times"]) for call in calls if len(call["token_times"]) != GENERATED]
    if short:
        raise harness.BenchError(f"answers of {short} tokens; {GENERATED} were asked for")
    start = min(call["arrival"] for call in calls)
    end = max(call["token_times"][-1] for call in calls)
    first = [1e3 * (call["token_times"][0] - call["arrival"]) for call in calls]
    gaps = harness.gaps_ms(calls, start, end)
    return {"rate": harness.tokens_within(calls, start, end) / (end - start),
            "first_p50": harness.percentile(first, 50), "first_p95": harness.percentile(first, 95),
            "gap_p50": harness.percentile(gaps, 50), "gap_p99": harness.percentile(gaps, 99)}


def measure_peer(file_type, slots):
    with PeerServer(bench_peer.peer_model(file_type), slots) as server:
        return figures_of(peer_calls(server))


def measure_ours(bench, model, flags):
    with harness.Server(bench, model, **flags) as server:
        return figures_of(streams.burst_calls(bench, server, model, f"{PROMPT}:{GENERATED}"))


def sides(bench):
    """Name and measurement of each server, in turn."""
    for file_type, slots in PEER_SIDES:
        yield (f"llama.cpp dense-768 {file_type}, {slots} slots",
               functools.partial(measure_peer, file_type, slots))
    for kind, flags in streams.BURST_SIDES:
        model = "dense-768" if kind == "dense" else "cat-1536"
        name = (f"catserve {model}{'' if kind == 'dense' else ' C=16'} "
                f"{flags.get('weight_dtype', 'BF16')}, {flags['slots']} slots")
        yield name, functools.partial(measure_ours, bench, model, flags)


def table(runs):
    """A row for each server: the median of its runs, the rate with its range."""
    lines = ["| server, shape, weights | " + " | ".join(FIGURES.values()) + " |",
             "|---|" + "---|" * len(FIGURES)]
    for name, figures in runs.items():
        rates = [run["rate"] for run in figures]
        medians = {key: statistics.median(run[key] for run in figures) for key in FIGURES}
        lines.append(f"| {name} | {medians['rate']:.0f} ({min(rates):.0f}–{max(rates):.0f}) | "
                     f"{medians['first_p50'] / 1e3:.1f} s | {medians['first_p95'] / 1e3:.1f} s | "
                     f"{medians['gap_p50']:.0f} ms | {medians['gap_p99']:.0f} ms |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="sides whose name contains one of these: I8,Q8")
    parser.add_argument("--out", type=pathlib.Path, default=RESULT)
    options = parser.parse_args()
    if not (bench_peer.PEER / "build/bin/llama-server").is_file():
        sys.exit("llama.cpp's server is missing: run tools/install_peer.sh first")
    bench = harness.Bench(options.build, quick=False)
    chosen = {name: run for name, run in sides(bench)
              if any(part in name for part in options.only.split(","))}
    runs, load = {name: [] for name in chosen}, harness.load_average()
    for _ in range(options.rounds):
        for name, run in chosen.items():
            runs[name].append(run())
            harness.say(f"  {name}: {runs[name][-1]['rate']:.0f} tokens/s")
    options.out.write_text(json.dumps(
        {"machine": harness.machine(), "commit": harness.commit(),
         "requests": REQUESTS, "prompt_tokens": PROMPT, "generated_tokens": GENERATED,
         "units": {"rate": "tokens/s", "others": "ms"}, "load_average_before": round(load, 2),
         "runs": runs}, indent=1) + "\n")
    print(table(runs))


if __name__ == "__main__":
    main()
