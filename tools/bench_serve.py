#!/usr/bin/env python3
"""Load against the real server: starts catserved on free ports, runs experiments with serve_load,
stops what it started.

    tools/bench_serve.py BUILD_DIR                          the quick form of every experiment
    tools/bench_serve.py BUILD_DIR --experiment capacity    the full form of one

A full form writes bench/results/serve/EXPERIMENT.json, a quick one BUILD_DIR/../bench_serve/.
Ends with a table and name=value lines.
"""

import argparse
import json
import pathlib
import signal
import subprocess
import sys
import time

from serve_bench import curve, harness, memory, streams

EXPERIMENTS = {
    "capacity": memory.capacity,
    "batching": streams.batching,
    "burst": streams.burst,
    "own_cost": streams.own_cost,
    "memory_bound": curve.memory_bound,
    "prompts_among_streams": streams.prompts_among_streams,
    "recovery": curve.recovery,
    "load_curve": curve.load_curve,
}
QUIET_LOAD = 1.0  # a load average above this spoils absolute figures


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--experiment", choices=EXPERIMENTS, help="one, in full")
    parser.add_argument("--quick", action="store_true", help="the quick form of that one")
    parser.add_argument("--shapes", type=lambda text: tuple(text.split(",")),
                        help="other models than the experiment's own, as cat-256,dense-128")
    parser.add_argument("--seconds", type=int, help="of each measurement, where it has a time")
    parser.add_argument("--runs", type=int, help="of each measurement, where it repeats")
    parser.add_argument("--out", type=pathlib.Path, help="folder of the results")
    options = parser.parse_args()
    for name in ("seconds", "runs"):
        value = getattr(options, name)
        if value is not None and not 1 <= value <= 3600:
            parser.error(f"--{name}={value} is out of range: 1 to 3600")
    if options.shapes and options.experiment is None:
        parser.error("--shapes needs --experiment")
    return options


def run(bench, name, options, out):
    """Runs one experiment and writes its record; its figures."""
    harness.say(f"== {name}: {EXPERIMENTS[name].__doc__.strip()}")
    load = harness.load_average()
    if load > QUIET_LOAD:
        harness.say(f"  note: load average {load:.1f}; take ratios, not absolute figures")
    bench.commands = []
    start = time.monotonic()
    figures, details = EXPERIMENTS[name](bench, options)
    seconds = time.monotonic() - start
    record = {
        "experiment": name, "form": "quick" if bench.quick else "full",
        "command": " ".join(["tools/bench_serve.py", "BUILD_DIR", *sys.argv[2:]]),
        "machine": harness.machine(), "commit": harness.commit(),
        "load_average_before": round(load, 2), "seconds": round(seconds, 1),
        "figures": [figure.as_json() for figure in figures], "details": details,
        "loads": bench.commands,
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
    harness.say(f"  {name} took {seconds:.0f} s")
    return figures


def table(figures):
    width = max(len(figure.name) for figure in figures)
    lines = [f"| {'figure':{width}} |     value |         range         | unit       |",
             f"|{'-' * (width + 2)}|-----------|-----------------------|------------|"]
    for f in figures:
        spread = f"{min(f.runs):.4g} to {max(f.runs):.4g} ({len(f.runs)})"
        lines.append(f"| {f.name:{width}} | {f.value:9.4g} | {spread:>21} | {f.unit:10} | {f.note}")
    return "\n".join(lines)


def main():
    # Ends by unwinding, so that the servers it started end too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    options = parse()
    quick = options.quick or options.experiment is None
    bench = harness.Bench(options.build, quick)
    out = options.out or (bench.build.parent / "bench_serve" if quick
                          else harness.ROOT / "bench/results/serve")
    names = [options.experiment] if options.experiment else list(EXPERIMENTS)
    figures, failed = [], []
    for name in names:
        try:
            figures += run(bench, name, options, out)
        except (harness.BenchError, subprocess.SubprocessError, OSError) as error:
            harness.say(f"  {name} failed: {error}")
            failed.append(name)
    machine = harness.machine()
    print(f"{machine['cpu']}, {machine['cores']} cores; {harness.commit()}; results in {out}")
    if figures:
        print(table(figures) + "\n")
    for figure in figures:
        print(f"{figure.name}={figure.value:.6g} {figure.unit}")
    if failed:
        sys.exit(f"bench_serve: failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
