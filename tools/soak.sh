#!/usr/bin/env bash
# Builds the server as it ships and with Address- and UBSanitizer, the engine with ThreadSanitizer,
# and soaks all three, beside each other, for SOAK_SECONDS (1800 by default). See tools/soak.py.
set -euo pipefail
cd "$(dirname "$0")/.."
tools/build.sh release catserved catctl >/dev/null
tools/build.sh asan catserved catctl >/dev/null
tools/build.sh tsan engine_soak_test >/dev/null
# The system's Python: that of the packages.
exec /usr/bin/python3 tools/soak.py --seconds "${SOAK_SECONDS:-1800}" \
  --server build/release --sanitized build/asan --engine build/tsan
