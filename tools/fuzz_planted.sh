#!/usr/bin/env bash
# Shows that the fuzz targets find what they are for: in a copy of the sources, plants the bug of
# tests/fuzz/planted/TARGET.patch into the code that the target checks, and fuzzes it from the kept
# corpus until it is found.
#   tools/fuzz_planted.sh [--seconds N] [TARGET ...]     60 s for each by default
#   tools/fuzz_planted.sh --check                        only that every patch fits the sources
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
export CCACHE_DIR=${CCACHE_DIR:-$root/.cache/ccache}
seconds=60
case ${1:-} in
  --check)
    for patch in tests/fuzz/planted/*.patch; do
      patch --dry-run --silent --fuzz=0 -p1 <"$patch" || { echo "$patch does not fit" >&2; exit 1; }
    done
    exit 0
    ;;
  --seconds)
    seconds=$2
    shift 2
    ;;
esac
targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(basename -s .cc tests/fuzz/*_fuzz.cc)

copy=build/fuzz_planted/tree
mkdir -p "$copy"
# What is newer in the copy was patched there and patched back: it stays, to be compiled again.
git ls-files -z --cached --others --exclude-standard |
  tar --create --null --files-from=- |
  tar --extract --keep-newer-files --warning=no-ignore-newer --directory="$copy"
build() {
  CCACHE_BASEDIR=$PWD CCACHE_NOHASHDIR=1 tools/build.sh fuzz "$1" >"$work/build.log" 2>&1 || {
    tail -n 40 "$work/build.log" >&2
    exit 1
  }
}
for target in "${targets[@]}"; do
  patch=$root/tests/fuzz/planted/$target.patch
  bug=$(head -n 1 "$patch")
  work=$root/build/fuzz_planted/$target
  rm -rf "$work"
  mkdir -p "$work/corpus"
  build "$target"
  (
    cd "$copy"
    patch --silent -p1 <"$patch"
    trap 'patch --silent --reverse -p1 <"$patch"' EXIT
    build "$target"
  )
  "$copy/build/fuzz/tests/fuzz/$target" "$work/corpus" "tests/fuzz/corpus/$target" \
    -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
    -artifact_prefix="$work/" >"$work/log" 2>&1 || true
  input=$(find "$work" -maxdepth 1 -name 'crash-*' | head -n 1)
  if [ -z "$input" ]; then
    tail -n 5 "$work/log" >&2
    echo "$target: the planted bug was NOT found in $seconds s: $bug" >&2
    exit 1
  fi
  # The bug's doing, not the target's: the sources as they are take the same input.
  "build/fuzz/tests/fuzz/$target" "$input" >"$work/good.log" 2>&1 || {
    echo "$target: the sources without the planted bug fail, too, on $input" >&2
    exit 1
  }
  inputs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$work/log")
  echo "$target: found after ${inputs:-some} inputs: $bug"
done
