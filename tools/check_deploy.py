#!/usr/bin/env python3
"""Checks chart, container, rules, dashboard and Python client with their own validators:
tools/check_deploy.py BUILD_DIR. Ends with what was validated by which tool, and a summary line.
"""

import os
import pathlib
import sys
import time
import unittest

# What none of the tests can do on a machine without registries, clusters and GPUs.
OUT_OF_REACH = """\
not checked: the Dockerfile's build stages (their bases cannot be had; the same build ran here)
not checked: the target cuda (its bases cannot be had; make cuda builds its server where nvcc is)
not checked: installing the chart in a cluster; custom resources against their controllers' CRDs"""

ROOT = pathlib.Path(__file__).resolve().parents[1]
TESTS = ROOT / "tests/deploy"


def main(build):
    sys.path[:0] = [str(TESTS), str(ROOT / "tests/server")]
    os.environ["CATSERVE_BUILD"] = str(pathlib.Path(build).resolve())
    import report  # of the tests' folder

    start = time.monotonic()
    suite = unittest.defaultTestLoader.discover(str(TESTS), pattern="*_test.py")
    result = unittest.TextTestRunner(verbosity=1).run(suite)
    print()
    lines = report.lines()
    width = max(len(what) for what, _ in lines)
    for what, tool in lines:
        print(f"{what:<{width}}  {tool}")
    for test, reason in result.skipped:
        print(f"not checked: {test.id()}: {reason}")
    print(OUT_OF_REACH)
    failed = len(result.failures) + len(result.errors) + len(result.unexpectedSuccesses)
    print(f"check-deploy: {result.testsRun} tests, {failed} failed, {len(result.skipped)} skipped, "
          f"{time.monotonic() - start:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1]))
