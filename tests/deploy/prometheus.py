"""Debian's Prometheus (unpacked by tools/install_deploy_tools.sh) and the table of our metrics."""

import functools
import re
import subprocess

import chart

PROGRAMS = chart.ROOT / ".cache/deploy/debian/usr/bin"
PROMETHEUS = PROGRAMS / "prometheus"
PROMTOOL = PROGRAMS / "promtool"


@functools.cache
def version():
    done = subprocess.run([PROMTOOL, "--version"], text=True, capture_output=True, check=True)
    return "promtool " + re.search(r"version (\S+)", done.stdout)[1]


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
