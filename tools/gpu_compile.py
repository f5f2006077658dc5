#!/usr/bin/env python3
"""Compiles the CUDA kernels for every architecture that catserve is meant for and reads the
compiler's report: no warning, no spill, no stack, and no more registers than a kernel's bound.

Without nvcc it says so and exits 3. What has been compiled is not compiled again until a source,
the compiler or a flag changes. Nothing is run: no figure here says how fast a kernel is.
"""

import argparse
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
SOURCES = ROOT / "kernels" / "cuda"
ARCHITECTURES = ("sm_80", "sm_89", "sm_90")
FLAGS = ("-std=c++20", "-O3", "-fmad=false", "-Werror", "all-warnings", "-Xptxas", "-v")
NO_COMPILER = 3

# Registers a thread may use, by architecture and demangled name, the first match counting. 65,536
# of them on a multiprocessor: 64 leave room for 32 warps, 128 for 16. A bound is what the kernel
# needs today; raising one is a decision about how many warps hide the latency of memory.
REGISTERS = (
    (r"sm_90 PagedAttentionDecode<TileLayout<BF16, 64, true, 16>, 1, 1>", 64),
    (r"PagedAttentionDecode<.*(signed char|E4M3).*, 4, [18]>\(", 255),
    (r"PagedAttentionDecode<.*(signed char|, 128, true).*, 2, [18]>\(", 176),
    (r"PagedAttentionDecode<.*, [12], [18]>\(", 128),
    (r"PagedAttentionDecode<", 240),
    (r"PagedAttentionPiece<.*, 128>", 216),
    (r"PagedAttentionPiece<.*, 64>", 152),
    (r"MatVec<", 160),
    (r"Sample\(|ScoreTokens\(", 64),
    (r"", 96),
)


def find_nvcc():
    """The compiler's path, or None: NVCC, then PATH, then where the toolkit installs itself."""
    return (os.environ.get("NVCC") or shutil.which("nvcc")
            or shutil.which("nvcc", path="/usr/local/cuda/bin"))


def parse_report(text):
    """ptxas' report as a list of {kernel (mangled), architecture, registers, stack, spills}."""
    kernels = []
    for line in text.splitlines():
        if found := re.search(r"Compiling entry function '(\S+)' for '(\w+)'", line):
            kernels.append({"kernel": found[1], "architecture": found[2]})
        elif found := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, "
                                r"(\d+) bytes spill loads", line):
            if kernels and "stack" not in kernels[-1]:  # else that of a function it calls
                kernels[-1]["stack"] = int(found[1])
                kernels[-1]["spills"] = int(found[2]) + int(found[3])
        elif (found := re.search(r"Used (\d+) registers", line)) and kernels:
            kernels[-1]["registers"] = int(found[1])
    return kernels


def demangle(kernels):
    """Replaces the names by readable ones, where c++filt can be found."""
    if not kernels or not shutil.which("c++filt"):
        return kernels
    names = subprocess.run(["c++filt"], input="\n".join(k["kernel"] for k in kernels), text=True,
                           capture_output=True, check=True).stdout.splitlines()
    return [{**k, "kernel": n.replace("catserve::cuda::", "").removeprefix("void ")}
            for k, n in zip(kernels, names)]


def register_bound(kernel):
    name = f"{kernel['architecture']} {kernel['kernel']}"
    return next(bound for pattern, bound in REGISTERS if re.search(pattern, name))


def complaints(kernels):
    """What is wrong with a parsed report, a line each."""
    found = []
    for k in kernels:
        where = f"{k['kernel']} for {k['architecture']}"
        missing = {"registers", "stack", "spills"} - k.keys()
        if missing:
            found.append(f"{where}: the report lacks {', '.join(sorted(missing))}")
            continue
        if k["spills"]:
            found.append(f"{where}: {k['spills']} bytes of spills")
        if k["stack"]:
            found.append(f"{where}: {k['stack']} bytes of stack")
        if k["registers"] > register_bound(k):
            found.append(f"{where}: {k['registers']} registers, more than {register_bound(k)}")
    return found


def fingerprint(nvcc, architectures):
    """Of all that a compilation depends on."""
    digest = hashlib.sha256(" ".join((*FLAGS, *architectures)).encode())
    digest.update(subprocess.run([nvcc, "--version"], capture_output=True, check=True).stdout)
    files = [p for folder in (SOURCES, SOURCES.parent) for p in folder.iterdir()
             if p.suffix in (".cu", ".cuh", ".h")]
    for path in sorted(files):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def compile_kernels(nvcc, architectures, out):
    """Compiles every .cu into `out`; returns the parsed reports. Raises CalledProcessError."""
    out.mkdir(parents=True, exist_ok=True)
    targets = [f for a in architectures
               for f in ("-gencode", f"arch={a.replace('sm_', 'compute_')},code={a}")]
    kernels = []
    for source in sorted(SOURCES.glob("*.cu")):
        done = subprocess.run(
            [nvcc, *FLAGS, *targets, "-fatbin", f"-I{ROOT}", str(source), "-o",
             str(out / f"{source.stem}.fatbin")], text=True, capture_output=True, check=False)
        if done.returncode != 0:
            sys.stderr.write(done.stdout + done.stderr)
            done.check_returncode()
        kernels += parse_report(done.stderr + done.stdout)
    return demangle(kernels)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "build" / "cuda")
    parser.add_argument("--architecture", action="append", choices=ARCHITECTURES,
                        help="default: all of them")
    options = parser.parse_args()
    nvcc = find_nvcc()
    if nvcc is None:
        print("no nvcc found: put it on PATH or set NVCC; the CPU build is whole without it")
        return NO_COMPILER
    architectures = tuple(options.architecture or ARCHITECTURES)
    key = fingerprint(nvcc, architectures)
    report = options.out / "report.json"
    stored = json.loads(report.read_text(encoding="utf-8")) if report.is_file() else {}
    if stored.get("key") != key:
        kernels = compile_kernels(nvcc, architectures, options.out)
        stored = {"key": key, "kernels": kernels}
        report.write_text(json.dumps(stored, indent=1), encoding="utf-8")
    for k in stored["kernels"]:
        print(f"{k['architecture']} {k.get('registers', '?'):>4} registers  {k['kernel']}")
    wrong = complaints(stored["kernels"])
    for line in wrong:
        print(f"WRONG: {line}")
    seen = {k["architecture"] for k in stored["kernels"]}
    if seen != set(architectures):
        wrong.append("an architecture")
        print(f"WRONG: compiled for {sorted(seen)}, not for {sorted(architectures)}")
    print("compiled, never run: this says nothing about speed")
    print(f"kernels_compiled={len(stored['kernels'])} instances")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
