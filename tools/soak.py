#!/usr/bin/python3
"""The long mixed-load test: the real server as it ships and under AddressSanitizer, and the engine
alone under ThreadSanitizer, beside each other for as long.

    tools/soak.py --seconds 1800 --server BUILD_DIR --sanitized BUILD_DIR --engine BUILD_DIR

Load of every kind at once: short and long prompts, fixed and automatic budgets, scores, several
choices, cancels, deadlines, slow readers, readers that stop, bad requests, killed clients. Passes
if every call ended as it may, memory and descriptors stayed flat, every page is free at the end,
the servers drain with code 0, nothing leaked and no sanitizer said a word. Ends with a table and
name=value lines of each.
"""

import argparse
import concurrent.futures
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

import soak_load

ROOT = pathlib.Path(__file__).resolve().parents[1]
MODEL = ROOT / "models/text"
LOG_WORDS = ("AddressSanitizer", "runtime error", "LeakSanitizer", "ThreadSanitizer")
SAMPLE_SECONDS = 2.0
WARM_UP_SHARE = 0.5
# Of the resident memory after warm-up, of the server as it ships. The sanitizer keeps every new
# stack that allocates, of which gRPC's threads find more for hours, so there a larger growth is
# allowed: what nobody points to any more it would report as a leak.
RESIDENT_GROWTH_MAX = 0.05
RESIDENT_GROWTH_MAX_SANITIZED = 0.25
START_SECONDS = 120
STARTED = []  # servers
END_SECONDS = 180  # for calls under way when the time is over, and for the drain


def say(text):
    print(text, file=sys.stderr, flush=True)


class SoakError(Exception):
    """What was not as it must be."""


class Server:
    """catserved of one build; its log is kept in `folder`."""

    def __init__(self, build, folder, flags):
        self.log = folder / "server.log"
        port = folder / "port"
        environment = dict(os.environ, ASAN_OPTIONS="quarantine_size_mb=8:malloc_context_size=4")
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [build / "server/catserved", f"--model={MODEL}", "--listen_address=127.0.0.1:0",
                 "--metrics_address=127.0.0.1:0", f"--port_file={port}", *flags],
                stderr=log, env=environment)
        STARTED.append(self.process)
        limit = time.monotonic() + START_SECONDS
        while b"event=serving" not in self.log.read_bytes():
            if self.process.poll() is not None or time.monotonic() > limit:
                raise SoakError("the server did not start:\n" + self.log.read_text()[-2000:])
            time.sleep(0.1)
        self.address = "127.0.0.1:" + port.read_text().strip()
        self.page = ("http://127.0.0.1:" + (folder / "port.metrics").read_text().strip()
                     + "/metrics")

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def resident_mib(self):
        for line in pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        raise SoakError("the server is gone:\n" + self.log.read_text()[-4000:])

    def metrics(self):
        """Values without labels by name."""
        values = {}
        with urllib.request.urlopen(self.page, timeout=30) as answer:
            for line in answer.read().decode().splitlines():
                if not line.startswith("#") and "{" not in line:
                    name, value = line.split()
                    values[name] = float(value)
        return values


def sample(server, start):
    page = server.metrics()
    return {"second": time.monotonic() - start, "resident_mib": server.resident_mib(),
            "descriptors": server.descriptors(), "running": page["catserve_running_requests"],
            "waiting": page["catserve_waiting_requests"],
            "pages": page["catserve_kv_pages_used"]}


def watch(name, server, load, seconds):
    """Samples until the time is over; a line every half a minute."""
    start = time.monotonic()
    samples, told = [], 0
    while time.monotonic() < load.until:
        time.sleep(SAMPLE_SECONDS)
        samples.append(sample(server, start))
        now = samples[-1]
        if now["second"] - told >= 30:
            told = now["second"]
            say(f"{name}: {now['second']:.0f} of {seconds} s: {sum(load.ends.values())} calls, "
                f"{now['resident_mib']:.0f} MiB, {now['descriptors']:.0f} descriptors, "
                f"{now['running']:.0f} running, {now['waiting']:.0f} waiting, "
                f"{now['pages']:.0f} pages")
        if load.wrong:
            raise SoakError(load.wrong[0])
    return samples


def end_load(server, load, threads, idle_before):
    """Waits for the last calls and until their connections are gone; the idle server's sample."""
    limit = time.monotonic() + END_SECONDS
    for thread in threads:
        thread.join(max(0, limit - time.monotonic()))
        if thread.is_alive():
            raise SoakError("a call did not end")
    for channel in load.channels:
        channel.close()
    while True:
        idle = sample(server, 0)
        at_rest = idle["pages"] == idle["running"] == idle["waiting"] == 0
        if at_rest and idle["descriptors"] <= idle_before["descriptors"]:
            return idle
        if time.monotonic() > limit:
            raise SoakError(f"the server did not come to rest: {idle}, before: {idle_before}")
        time.sleep(0.1)


def judge(samples, idle_before, idle_after, growth_max):
    """The figures; those of them that are not as they must be, as errors."""
    warm = samples[int(len(samples) * WARM_UP_SHARE):]
    part = max(1, len(warm) // 4)
    early = statistics.median(s["resident_mib"] for s in warm[:part])
    late = statistics.median(s["resident_mib"] for s in warm[-part:])
    figures = {"resident_after_warm_up": f"{early:.1f} MiB",
               "resident_at_end": f"{late:.1f} MiB",
               "resident_growth": f"{100 * (late / early - 1):.2f} %",
               "descriptors_idle_before": f"{idle_before['descriptors']} descriptors",
               "descriptors_idle_after": f"{idle_after['descriptors']} descriptors",
               "descriptors_most": f"{max(s['descriptors'] for s in samples)} descriptors",
               "kv_pages_most": f"{max(s['pages'] for s in samples):.0f} pages",
               "kv_pages_at_end": f"{idle_after['pages']:.0f} pages"}
    errors = []
    if late > early * (1 + growth_max):
        errors.append(f"resident memory grew from {early:.1f} to {late:.1f} MiB")
    return figures, errors


def table(samples):
    step = max(1, len(samples) // 10)
    lines = ["| second | resident MiB | descriptors | running | waiting | pages |",
             "|---|---|---|---|---|---|"]
    for s in samples[::step]:
        lines.append(f"| {s['second']:.0f} | {s['resident_mib']:.0f} | {s['descriptors']} | "
                     f"{s['running']:.0f} | {s['waiting']:.0f} | {s['pages']:.0f} |")
    return "\n".join(lines)


def soak_server(name, build, seconds, growth_max, messages):
    """Soaks one server; what was wrong. `name` stands in front of its lines."""
    with tempfile.TemporaryDirectory() as folder:
        server = Server(build, pathlib.Path(folder),
                        ["--slots=12", "--queue_requests_max=24", "--threads=2",
                         "--kv_memory_bytes=6000000", "--drain_seconds=30"])
        try:
            idle_before = sample(server, 0)
            load = soak_load.Load(server.address, build, messages, time.monotonic() + seconds)
            threads = load.callers()
            for thread in threads:
                thread.start()
            samples = watch(name, server, load, seconds)
            idle_after = end_load(server, load, threads, idle_before)
            if load.wrong:
                raise SoakError(load.wrong[0])
            server.process.send_signal(signal.SIGTERM)
            code = server.process.wait(END_SECONDS)
        finally:
            if server.process.poll() is None:
                server.process.kill()
                server.process.wait()
        log = server.log.read_text(errors="replace")
    figures, errors = judge(samples, idle_before, idle_after, growth_max)
    errors += [line for line in log.splitlines() if any(word in line for word in LOG_WORDS)]
    if code != 0:
        errors.append(f"it ended with code {code}:\n{log[-4000:]}")
    print(f"{name}:\n{table(samples)}")
    for (kind, status), count in sorted(load.ends.items()):
        print(f"soak_{name}_{kind}_{status.lower().replace(' ', '_')}={count} calls")
    for figure, value in figures.items():
        print(f"soak_{name}_{figure}={value}")
    return errors


def start_engine(build, seconds, log):
    """The engine's own soak test, beside the server's."""
    return subprocess.Popen([build / "tests/engine/model/engine_soak_test"], cwd=ROOT, stdout=log,
                            stderr=subprocess.STDOUT,
                            env=dict(os.environ, CATSERVE_SOAK_SECONDS=str(seconds)))


def end_engine(engine, seconds, log):
    """Waits for its end; what was wrong."""
    code = engine.wait(seconds + END_SECONDS)
    log.seek(0)
    text = log.read().decode(errors="replace")
    print("\n".join(line for line in text.splitlines() if line.startswith("engine_")))
    return [f"the engine's soak ended with code {code}:\n{text[-4000:]}"] if code != 0 else []


def run(options, folder):
    errors = []
    messages = soak_load.generated_messages(folder)
    servers = [("shipped", options.server, RESIDENT_GROWTH_MAX),
               ("sanitized", options.sanitized, RESIDENT_GROWTH_MAX_SANITIZED)]
    with open(folder / "engine.log", "w+b") as log, \
            concurrent.futures.ThreadPoolExecutor() as pool:
        engine = start_engine(options.engine.resolve(), options.seconds, log)
        soaks = {name: pool.submit(soak_server, name, build.resolve(), options.seconds, growth_max,
                                   messages) for name, build, growth_max in servers}
        try:
            for name, soak in soaks.items():
                try:
                    errors += [f"the {name} server: {error}" for error in soak.result()]
                except SoakError as error:
                    errors.append(f"the {name} server: {error}")
            errors += end_engine(engine, options.seconds, log)
        except subprocess.TimeoutExpired as error:
            errors.append(str(error))
        finally:  # also when interrupted: then the servers' threads end with their servers
            for process in [engine, *STARTED]:
                process.kill()
                process.wait()
    return errors


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--seconds", type=int, default=1800)
    parser.add_argument("--server", type=pathlib.Path, required=True,
                        help="build of the server as it ships")
    parser.add_argument("--sanitized", type=pathlib.Path, required=True,
                        help="build of the server with AddressSanitizer")
    parser.add_argument("--engine", type=pathlib.Path, required=True,
                        help="build of the engine's own soak test")
    options = parser.parse_args()
    if not 10 <= options.seconds <= 86400:
        parser.error(f"--seconds={options.seconds} is out of range: 10 to 86400")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what it started ends with it
    with tempfile.TemporaryDirectory() as folder:
        errors = run(options, pathlib.Path(folder))
    for error in errors:
        say(f"FAILED: {error}")
    print(f"soak_seconds={options.seconds} s")
    print(f"soak_failures={len(errors)} failures")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
