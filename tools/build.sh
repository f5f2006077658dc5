#!/usr/bin/env bash
# Configures (once) and builds a preset: tools/build.sh release [target ...]
set -euo pipefail
cd "$(dirname "$0")/.."
preset=$1
shift
[ -f "build/$preset/build.ninja" ] || cmake --preset "$preset" >"/tmp/catserve-configure.$$" || {
  cat "/tmp/catserve-configure.$$" >&2
  exit 1
}
rm -f "/tmp/catserve-configure.$$"
cmake --build "build/$preset" -j "${JOBS:-$(nproc)}" ${1:+--target "$@"}
