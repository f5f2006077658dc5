#!/usr/bin/env bash
# Builds llama.cpp's batched benchmark and server for this machine into .cache/peer (minutes;
# nothing of the system changes) from PyPI's llama-cpp-python, which carries its sources, with a
# Python environment that writes its models. Says nothing when all is there.
set -euo pipefail
cd "$(dirname "$0")/.."
cache=.cache/peer
version=0.3.36
sha256=832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e

stamp=$cache/installed-$(cat tools/peer_requirements.txt "$0" | sha256sum | cut -c 1-16)
[ -e "$stamp" ] && exit 0
echo "Building llama.cpp of llama-cpp-python $version into $cache (some minutes)"
rm -rf "$cache"
python3 -m venv "$cache/venv"
pip=("$cache/venv/bin/pip" --quiet --disable-pip-version-check)
"${pip[@]}" install -r tools/peer_requirements.txt
"${pip[@]}" download --no-deps --no-binary :all: --dest "$cache" "llama-cpp-python==$version"
archive=$cache/llama_cpp_python-$version.tar.gz
echo "$sha256  $archive" | sha256sum --check --quiet
tar -xzf "$archive" -C "$cache"
cmake -G Ninja -S "$cache/llama_cpp_python-$version/vendor/llama.cpp" -B "$cache/build" \
  -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF \
  -DLLAMA_BUILD_SERVER=ON -DLLAMA_BUILD_TOOLS=ON -DLLAMA_BUILD_APP=OFF -DLLAMA_BUILD_UI=OFF \
  -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_OPENSSL=OFF >"$cache/log" 2>&1 &&
  cmake --build "$cache/build" --target llama-batched-bench llama-server >>"$cache/log" 2>&1 || {
  tail -20 "$cache/log" >&2
  exit 1
}
touch "$stamp"
