#!/usr/bin/env bash
# clang-tidy over every tracked source that the build knows: tools/run_clang_tidy.sh BUILD_DIR JOBS
set -euo pipefail
cd "$(dirname "$0")/.."
build=$1
files=$(git ls-files '*.cc' | while read -r f; do
  grep -qF "\"$PWD/$f\"" "$build/compile_commands.json" && echo "$f"
done)
echo "$files" | xargs -P "$2" -n 1 clang-tidy -p "$build" --quiet 2>&1 |
  grep -vE '^[0-9]+ warnings? (generated|treated)|^Suppressed|^Use -header|^$' || true
exit "${PIPESTATUS[1]}"
