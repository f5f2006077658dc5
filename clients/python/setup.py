"""Generates the stubs of proto/catserve/v1 while the package is built; all else: pyproject.toml.

In the repository the contract lies beside this folder; a source distribution carries a copy.
"""

import pathlib
import shutil
import sys

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

HERE = pathlib.Path(__file__).resolve().parent
FILES = ["catserve/v1/generation.proto", "catserve/v1/model.proto"]


def proto_folder():
    for folder in (HERE / "proto", HERE.parents[1] / "proto"):
        if all((folder / file).exists() for file in FILES):
            return folder
    sys.exit("proto/catserve/v1 is missing: build from a checkout or from a source distribution")


class GenerateStubs(build_py):
    def run(self):
        from grpc_tools import protoc  # of build-system.requires

        folder, out = proto_folder(), HERE
        arguments = [f"--proto_path={folder}", f"--python_out={out}", f"--pyi_out={out}",
                     f"--grpc_python_out={out}", *FILES]
        if protoc.main(["protoc", *arguments]) != 0:
            sys.exit("protoc failed, see above")
        (HERE / "catserve/v1/__init__.py").write_text('"""Generated from proto/catserve/v1."""\n')
        super().run()


class CarryContract(sdist):
    def make_release_tree(self, base_dir, files):
        super().make_release_tree(base_dir, files)
        for file in FILES:
            target = pathlib.Path(base_dir) / "proto" / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(proto_folder() / file, target)


# The folder is filled by GenerateStubs, but setuptools wants to see it before.
(HERE / "catserve/v1").mkdir(exist_ok=True)
setup(cmdclass={"build_py": GenerateStubs, "sdist": CarryContract})
