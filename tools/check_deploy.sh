#!/usr/bin/env bash
# Installs the tools it needs, then checks what deploys catserve: tools/check_deploy.sh BUILD_DIR
# With --write instead: makes the chart's README and deploy/rendered anew, for you to read the diff.
set -euo pipefail
cd "$(dirname "$0")/.."
tools/install_deploy_tools.sh
export PYTHONDONTWRITEBYTECODE=1
if [ "$1" = --write ]; then
  exec .cache/deploy/venv/bin/python tests/deploy/values_docs.py
fi
exec .cache/deploy/venv/bin/python tools/check_deploy.py "$1"
