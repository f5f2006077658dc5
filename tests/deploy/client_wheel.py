"""Builds the Python client's wheel and unpacks it, as pip would install it."""

import pathlib
import shutil
import subprocess
import sys
import zipfile

import chart


def install(work):
    """Builds a copy of clients/python in `work`; returns the folder to import it from."""
    source = pathlib.Path(work) / "clients/python"
    shutil.copytree(chart.ROOT / "clients/python", source,
                    ignore=shutil.ignore_patterns("build", "v1", "*.egg-info", "__pycache__"))
    shutil.copytree(chart.ROOT / "proto", pathlib.Path(work) / "proto")
    wheels = pathlib.Path(work) / "wheels"
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet",
         "--no-deps", "--no-build-isolation", "--wheel-dir", wheels, source],
        text=True, capture_output=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"pip wheel: {done.stdout}{done.stderr}")
    installed = pathlib.Path(work) / "installed"
    with zipfile.ZipFile(next(wheels.glob("catserve-*.whl"))) as wheel:
        wheel.extractall(installed)
    return installed
