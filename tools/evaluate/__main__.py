"""tools/evaluate BUILD_DIR: see command.py."""

import pathlib
import sys

# This folder is a package: it is tools/ that its modules are found from.
sys.path[0] = str(pathlib.Path(__file__).resolve().parents[1])

from evaluate import command  # pylint: disable=wrong-import-position

if __name__ == "__main__":
    command.main()
