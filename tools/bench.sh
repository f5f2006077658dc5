#!/usr/bin/env bash
# The benchmarks of docs/benchmarks.md on this machine's CPU: tools/bench.sh BUILD_DIR
# QUICK=1 takes the shipped models alone (a minute).
set -euo pipefail
cd "$(dirname "$0")/.."
bench=$1/bench/engine_bench
grep -m1 'model name' /proc/cpuinfo || true
echo "$(nproc) cores; load $(cut -d' ' -f1 /proc/loadavg); $(git describe --always --dirty)"
lines=$(mktemp)
trap 'rm -f "$lines"' EXIT
run() {
  "$bench" "$@" | tee >(grep = >>"$lines") | grep -v = || true
  echo
}
"$1/bench/kernel_bench" | tee >(grep = >>"$lines") | grep -v = || true
run --model=models/english-tiny --prompt_tokens=256
run --model=models/english-tiny-dense --prompt_tokens=256
if [ "${QUICK:-0}" != 1 ]; then
  for shape in dense-768 cat-1536 dense-1536; do
    run --shape="$shape" --prompt_tokens="${PROMPT_TOKENS:-512}"
  done
fi
cat "$lines"
