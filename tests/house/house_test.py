#!/usr/bin/env python3
"""The house rules that a compiler does not check: who may include whom, how long lines and files
may be, how many flags the server has. (Function length and parameters: clang-tidy in make check.)
"""

import ast
import pathlib
import re
import subprocess
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SOURCE = {".cc", ".h", ".cu", ".cuh", ".proto", ".py", ".sh"}

# A folder (longest prefix wins) and the includes from this tree that it may have. `engine/model`
# must not know the schedule, nor the schedule the model: that is what keeps both testable.
STEP = ["engine/step.h", "engine/geometry.h", "engine/model_description.h"]
ALLOWED = {
    "server/main.cc": ["server/", "engine/", "kernels/backend", "kernels/tensor.h", "catserve/v1/"],
    "server/": ["server/", "engine/engine.h", "engine/admission.h", "engine/schedule/request.h",
                "engine/text/", "catserve/v1/", *STEP],
    "engine/model/": ["engine/model/", "kernels/[^/]+$", *STEP],
    "engine/schedule/": ["engine/schedule/", "kernels/check.h", *STEP],
    "engine/text/": ["engine/text/", "kernels/check.h"],
    "engine/": ["engine/[^/]+$", "engine/schedule/", "engine/text/", "kernels/check.h"],
    "kernels/backend_factory.cc": ["kernels/"],
    "kernels/cpu/": ["kernels/cpu/", "kernels/[^/]+$"],
    "kernels/cuda/": ["kernels/cuda/", "kernels/[^/]+$"],
    "kernels/": ["kernels/[^/]+$"],
    "bench/": ["bench/", "engine/", "kernels/"],
    "bench/serve_load/": ["bench/serve_load/", "catserve/v1/"],
    "tests/": [""],
}
TREE = ("server/", "engine/", "kernels/", "bench/", "tests/", "catserve/")
FILE_LINES = 400
KERNEL_LINES = 300
COLUMNS = 100
FLAGS = 20
PYTHON_FUNCTION_LINES = 70


def tracked_sources():
    """Every source that git tracks or would track."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, text=True,
        capture_output=True, check=False)
    if listed.returncode == 0:
        names = listed.stdout.splitlines()
    else:  # an unpacked archive
        names = [str(p.relative_to(ROOT)) for p in ROOT.rglob("*") if "build" not in p.parts]
    return [n for n in names if pathlib.Path(n).suffix in SOURCE and (ROOT / n).is_file()]


def forbidden_includes(name, text):
    """Quoted includes of `name` that its folder may not have."""
    folder = max((p for p in ALLOWED if name.startswith(p)), key=len, default=None)
    if folder is None:
        return []
    included = re.findall(r'^\s*#\s*include\s+"([^"]+)"', text, re.M)
    own = [i for i in included if i.startswith(TREE)]
    return [i for i in own if not any(re.match(p, i) for p in ALLOWED[folder])]


def too_long(name, text):
    """Complaints about the lengths of a file and of its lines."""
    lines = text.splitlines()
    limit = KERNEL_LINES if re.match(r"kernels/(cpu|cuda)/", name) else FILE_LINES
    found = [f"{name}: {len(lines)} lines, more than {limit}"] if len(lines) > limit else []
    for number, line in enumerate(lines, 1):
        if len(line) > COLUMNS:
            found.append(f"{name}:{number}: {len(line)} columns, more than {COLUMNS}")
    return found


def long_python_functions(name, text):
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = node.end_lineno - node.lineno + 1
            if length > PYTHON_FUNCTION_LINES:
                found.append(f"{name}:{node.lineno}: {node.name} has {length} lines")
    return found


class HouseTest(unittest.TestCase):
    def setUp(self):
        self.sources = {n: (ROOT / n).read_text(encoding="utf-8") for n in tracked_sources()}
        self.assertGreater(len(self.sources), 30, "the list of sources is broken")

    def test_includes_point_the_right_way(self):
        wrong = [f"{n} includes {i}" for n, t in self.sources.items()
                 for i in forbidden_includes(n, t)]
        self.assertEqual(wrong, [])

    def test_files_and_lines_have_limits(self):
        self.assertEqual([c for n, t in self.sources.items() for c in too_long(n, t)], [])

    def test_python_functions_fit_a_screen(self):
        self.assertEqual([c for n, t in self.sources.items() if n.endswith(".py")
                          for c in long_python_functions(n, t)], [])

    def test_headers_guard_themselves(self):
        self.assertEqual([n for n, t in self.sources.items()
                          if n.endswith((".h", ".cuh")) and "#pragma once" not in t], [])

    def test_the_server_has_few_flags(self):
        flags = [f for n, t in self.sources.items() if n.startswith("server/")
                 and "catctl" not in n for f in re.findall(r"^ABSL_FLAG\([^,]+,\s*(\w+)", t, re.M)]
        self.assertLessEqual(len(flags), FLAGS, f"move some to a configuration file: {flags}")

    def test_one_ifdef_chooses_the_backend(self):
        users = [n for n, t in self.sources.items() if re.search(
            r"^\s*#\s*(ifdef|if\s+defined).*CATSERVE_CUDA", t, re.M)]
        self.assertLessEqual(set(users), {"kernels/backend_factory.cc"})


class RulesFindWhatTheyShould(unittest.TestCase):
    def test_a_wrong_include_is_found(self):
        wrong = '#include "engine/schedule/scheduler.h"\n'
        self.assertEqual(forbidden_includes("engine/model/x.cc", wrong),
                         ["engine/schedule/scheduler.h"])
        self.assertEqual(forbidden_includes("engine/schedule/x.cc", '#include "kernels/backend.h"'),
                         ["kernels/backend.h"])
        self.assertEqual(forbidden_includes("server/main.cc", '#include "kernels/backend.h"'), [])

    def test_a_long_line_and_a_long_file_are_found(self):
        self.assertEqual(len(too_long("a.cc", "x" * 101)), 1)
        self.assertEqual(len(too_long("kernels/cpu/a.cc", "\n" * 301)), 1)
        self.assertEqual(too_long("engine/a.cc", "\n" * 301), [])


if __name__ == "__main__":
    unittest.main()
