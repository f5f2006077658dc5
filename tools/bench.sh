#!/usr/bin/env bash
# The benchmarks of docs/benchmarks.md on this machine's CPU: tools/bench.sh BUILD_DIR
# QUICK=1 takes the kernels and the shipped models alone (two minutes).
set -euo pipefail
cd "$(dirname "$0")/.."
build=$1/bench
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
grep -m1 'model name' /proc/cpuinfo || true
echo "$(nproc) cores; load $(cut -d' ' -f1 /proc/loadavg); $(git describe --always --dirty)"

# Shows a benchmark's table as it grows and keeps its name=value lines for the end.
run() {
  echo
  "$build/$1" "${@:2}" | tee "$work/output" | { grep -v = || true; }
  { grep = "$work/output" || true; } >>"$work/figures"
}
run kernel_bench
run engine_bench --model=models/text --prompt_tokens=256
run engine_bench --model=models/text-dense --prompt_tokens=256
if [ "${QUICK:-0}" != 1 ]; then
  for shape in dense-768 cat-1536; do
    run engine_bench --shape="$shape" --prompt_tokens="${PROMPT_TOKENS:-512}" \
      --generated_tokens="${GENERATED_TOKENS:-24}"
  done
fi
echo
cat "$work/figures"
