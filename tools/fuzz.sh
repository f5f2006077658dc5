#!/usr/bin/env bash
# Builds the libFuzzer targets and runs each for a while, one on each core (JOBS), starting from the
# kept corpus:
#   tools/fuzz.sh SECONDS [TARGET ...]
# What is found is written to build/fuzz/artifacts, and the run fails.
set -euo pipefail
cd "$(dirname "$0")/.."
export CCACHE_BASEDIR=$PWD CCACHE_NOHASHDIR=1  # objects that tools/fuzz_planted.sh finds again
seconds=$1
shift
targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(basename -s .cc tests/fuzz/*_fuzz.cc)
tools/build.sh fuzz "${targets[@]}" >/dev/null
mkdir -p build/fuzz/artifacts

fuzz() {
  local target=$1 work=build/fuzz/corpus/$1 log=build/fuzz/artifacts/$1.log
  mkdir -p "$work"
  if ! "build/fuzz/tests/fuzz/$target" "$work" "tests/fuzz/corpus/$target" \
    -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
    -artifact_prefix=build/fuzz/artifacts/ >"$log" 2>&1; then
    tail -n 60 "$log" >&2
    echo "$target: FAILED; the input is in build/fuzz/artifacts" >&2
    return 1
  fi
  echo "$target: $(sed -n 's/^stat::number_of_executed_units: //p' "$log") inputs, nothing found"
}
export -f fuzz
export seconds
printf '%s\n' "${targets[@]}" | xargs -P "${JOBS:-$(nproc)}" -I{} bash -c 'fuzz {}'
