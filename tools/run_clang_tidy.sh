#!/usr/bin/env bash
# clang-tidy over what ships, tests excepted: tools/run_clang_tidy.sh BUILD_DIR JOBS
# Fails if any file has a finding.
set -euo pipefail
cd "$(dirname "$0")/.."
build=$1
log=$(mktemp)
trap 'rm -f "$log"' EXIT
failed=0
git ls-files '*.cc' ':!tests' | while read -r file; do
  if grep -qF "\"$PWD/$file\"" "$build/compile_commands.json"; then echo "$file"; fi
done | xargs -P "$2" -n 1 clang-tidy -p "$build" --quiet >"$log" 2>&1 || failed=1
grep -vE '^[0-9]+ warnings? (generated|treated)|^Suppressed|^Use -header|^$' "$log" || true
exit "$failed"
