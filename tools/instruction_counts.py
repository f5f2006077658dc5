#!/usr/bin/env python3
"""Counts the instructions of the CPU engine's hot operations and compares them with those recorded.

usage: tools/instruction_counts.py BUILD_DIR [--write]

Counts come from callgrind, on one thread with fixed input (bench/instructions.cc): unlike times,
they do not change with what else the machine does. Fails if an operation takes more than 3% more
than recorded, or if one is recorded that does not exist, or the other way round. --write records
what is measured now. Exits with 3 where nothing can be compared: no valgrind, no AVX2, or another
build than that which bench/instructions.txt names.
"""

import argparse
import concurrent.futures
import os
import pathlib
import re
import shutil
import subprocess
import sys

RECORD = pathlib.Path(__file__).resolve().parent.parent / "bench" / "instructions.txt"
TOLERANCE = 0.03
HEADER = """\
# Instructions of one call on one thread: written by tools/instruction_counts.py --write.
# Build: {build}
"""
NOT_COMPARED = 3


class CountError(Exception):
    """What keeps an operation from being counted, for the user to read."""


def parse_record(text):
    """The counts by operation of a record's text."""
    counts = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        match = re.fullmatch(r"(\w+) +([1-9]\d*)", line)
        if not match or match[1] in counts:
            raise CountError(f"{RECORD.name}:{number}: expected OPERATION COUNT, once each; "
                             "make the file anew with --write")
        counts[match[1]] = int(match[2])
    return counts


def compare(recorded, counted):
    """Lines of a table, and the complaints that make the comparison fail."""
    lines, complaints = [], []
    for name in sorted(recorded | counted):
        if name not in counted:
            complaints.append(f"{name} is recorded and no longer counted: --write if that is meant")
            continue
        if name not in recorded:
            complaints.append(f"{name} is not recorded: do it with --write")
            continue
        ratio = counted[name] / recorded[name]
        note = ""
        if ratio > 1 + TOLERANCE:
            note = "  MORE"
            complaints.append(f"{name} takes {counted[name]:,} instructions, {ratio - 1:.1%} more "
                              f"than the {recorded[name]:,} recorded")
        elif ratio < 1 - TOLERANCE:
            note = "  fewer: record it with --write"
        lines.append(f"{name:26} {recorded[name]:>12,} {counted[name]:>12,} {ratio:8.3f}{note}")
    return lines, complaints


def count(program, operation):
    """Instructions of one call of the operation."""
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null",
               "--collect-atstart=no", "--toggle-collect=CountedOperation", program, operation]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode != 0 or not found or int(found[1]) == 0:
        raise CountError(f"{operation}: callgrind counted nothing:\n{done.stderr[-2000:]}")
    return int(found[1])


def describe(build, backend):
    """What counts depend on: the backend, and the type and compiler of a build folder."""
    text = (build / "CMakeCache.txt").read_text()
    cache = dict(re.findall(r"^(CMAKE_\w+):\w+=(.+)$", text, re.MULTILINE))
    version = subprocess.run([cache["CMAKE_CXX_COMPILER"], "--version"], capture_output=True,
                             text=True, check=True).stdout.splitlines()[0]
    return f"{backend}, {cache.get('CMAKE_BUILD_TYPE')}, {version}"


def main():
    parser = argparse.ArgumentParser(usage=__doc__.split("\n")[2].removeprefix("usage: "))
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    program = options.build.resolve() / "bench" / "instructions"
    if not shutil.which("valgrind"):
        print("not counted: there is no valgrind here; it is a Debian package")
        return NOT_COMPARED
    listed = subprocess.run(["valgrind", "-q", "--tool=none", program], capture_output=True,
                            text=True, timeout=300, check=True)
    backend, *operations = listed.stdout.splitlines()
    build = describe(options.build, backend)
    text = RECORD.read_text() if RECORD.exists() else ""
    if not options.write and f"# Build: {build}\n" not in text:
        print(f"not compared: {RECORD.name} is of another build than this: {build}")
        return NOT_COMPARED
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        counts = pool.map(lambda operation: count(program, operation), operations)
        counted = dict(zip(operations, counts))
    if options.write:
        lines = [f"{name:26} {counted[name]}\n" for name in sorted(counted)]
        RECORD.write_text(HEADER.format(build=build) + "".join(lines))
        print(f"wrote {len(counted)} counts to {RECORD.name}")
        return 0
    lines, complaints = compare(parse_record(text), counted)
    print(f"{'operation':26} {'recorded':>12} {'now':>12} {'ratio':>8}", *lines, sep="\n")
    for complaint in complaints:
        print(f"instruction_counts: {complaint}", file=sys.stderr)
    return 1 if complaints else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (CountError, OSError, subprocess.SubprocessError) as error:
        sys.exit(f"instruction_counts: {error}")
