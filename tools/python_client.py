"""The Python client of clients/python for this repository's own tools and tests, with stubs that
the system's protoc makes (Debian: protobuf-compiler-grpc). Needs the system's Python
(/usr/bin/python3), which has Debian's python3-grpcio and python3-protobuf."""

import atexit
import importlib
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]


def install(folder):
    """Lays the package with its stubs into a folder, as `pip install` would."""
    shutil.copytree(ROOT / "clients/python/catserve", folder / "catserve",
                    ignore=shutil.ignore_patterns("v1", "__pycache__"))
    plugin = shutil.which("grpc_python_plugin")
    subprocess.run(["protoc", "-I", ROOT / "proto", f"--python_out={folder}",
                    f"--grpc_out={folder}", f"--plugin=protoc-gen-grpc={plugin}",
                    "catserve/v1/generation.proto", "catserve/v1/model.proto"], check=True)


def load():
    """The package `catserve`, importable from then on, gone when the program ends."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="catserve-client-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    install(folder)
    sys.path.insert(0, str(folder))
    return importlib.import_module("catserve")
