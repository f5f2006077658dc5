#!/usr/bin/env bash
# Installs what training needs, then checks the recipe: tools/check_train.sh BUILD_DIR
set -euo pipefail
cd "$(dirname "$0")/.."
tools/install_deps.sh tools/train/debian_packages.txt
export PYTHONDONTWRITEBYTECODE=1 OMP_WAIT_POLICY=passive
/usr/bin/python3 tools/train/check_golden.py
exec /usr/bin/python3 tests/train/recipe_test.py "$1"
