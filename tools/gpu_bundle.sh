#!/usr/bin/env bash
# Makes a folder that a machine with a GPU needs nothing else for but a driver and cuBLAS: tests,
# benchmarks, server and client with the CUDA backend, what they read, and the runner of make
# gpu-check. Ends with its checks: what the programs load, what they say without a driver, its size.
#   tools/gpu_bundle.sh [OUT]     build/gpu_bundle by default, and OUT.tar.xz beside it
set -euo pipefail
cd "$(dirname "$0")/.."
build=build/gpu
out=${1:-build/gpu_bundle}
programs=(tests/kernels/cuda/cuda_test bench/kernel_bench bench/engine_bench
  server/catserved server/catctl)
data=(tests/data/golden tests/data/fla models/recall LICENSE)
# Every Linux has these; the rest is linked in, or comes along.
of_the_system='^(linux-vdso|ld-linux-x86-64|libc|libm|libgcc_s|libstdc\+\+)\.so'
mib_max=60

tools/build.sh gpu "${programs[@]##*/}"
rm -rf "$out"
mkdir -p "$out/bin" "$out/lib"
for program in "${programs[@]}"; do
  strip -o "$out/bin/${program##*/}" "$build/$program"
done
ldd "${programs[@]/#/$build/}" | sed -nE 's/.*=> (\/[^ ]+) .*/\1/p' | sort -u |
  while read -r library; do
    [[ ${library##*/} =~ $of_the_system ]] || install -m 644 "$library" "$out/lib"
  done
cp --parents -r "${data[@]}" "$out"
install -m 755 tools/gpu_check.py "$out"
git describe --always --dirty >"$out/REVISION" 2>/dev/null || echo unknown >"$out/REVISION"

folder=$(realpath "$out")
for program in "$out"/bin/*; do
  # Where it runs the build's own folders must not be missed.
  loaded=$(cd / && env -i ldd "$folder/bin/${program##*/}" | awk '{print $1, $3}')
  while read -r name path; do
    [[ ${name##*/} =~ $of_the_system || $path == "$folder"/* ]] ||
      { echo "$program loads $name from ${path:-nowhere}" >&2; exit 1; }
  done <<<"$loaded"
done
status=0
(cd / && env -i "$folder/bin/cuda_test" --gtest_filter=none) || status=$?
[ $status = 0 ] || [ $status = 3 ] || { echo "cuda_test ends with $status" >&2; exit 1; }

tar --sort=name --owner=0 --group=0 -C "$(dirname "$out")" -cf - "$(basename "$out")" |
  xz -9 -T1 >"$out.tar.xz"
mib=$(($(du -sk "$out" | cut -f1) / 1024))
echo "$out: $mib MiB; $out.tar.xz: $(($(du -k "$out.tar.xz" | cut -f1) / 1024)) MiB"
[ $mib -lt $mib_max ] || { echo "the bundle is larger than $mib_max MiB" >&2; exit 1; }
