#!/usr/bin/env bash
# What CI runs after the tests: layout, clang-tidy, fuzzing, planted bugs that it has to find, the
# metrics through a real Prometheus, then the tests again under ThreadSanitizer (what has threads
# below the server), the mixed load for two minutes, and the tests under Address- and UBSanitizer
# (all of it). Between them chart, container, rules, dashboard and Python client by their own
# validators, and the training recipe against the server.
# Stops at the first failure; the last thing it prints is ctest's own summary.
set -euo pipefail
cd "$(dirname "$0")/.."
jobs=${JOBS:-$(nproc)}
fuzz_seconds=${FUZZ_SECONDS:-60}
soak_seconds=${SOAK_SECONDS:-120}
stage() { printf '\n== %s (after %d s)\n' "$*" "$SECONDS"; }

stage "clang-format: sources are in the house's layout"
git ls-files '*.cc' '*.h' '*.cuh' '*.cu' | xargs clang-format --dry-run -Werror

stage "clang-tidy: $(git ls-files '*.cc' ':!tests' | wc -l) files"
cmake --preset tidy >/dev/null
cmake --build build/tidy -j "$jobs" --target catserve_proto >/dev/null
tools/run_clang_tidy.sh build/tidy "$jobs"

stage "what deploys it: chart, container, rules, dashboard, Python client"
tools/build.sh release
tools/check_deploy.sh build/release

stage "training: the recipe's forward pass is the server's, a stopped run goes on"
tools/check_train.sh build/release

stage "fuzzing: $fuzz_seconds s for each target"
tools/fuzz.sh "$fuzz_seconds"

stage "planted bugs: each fuzz target finds its own"
tools/fuzz_planted.sh

stage "Prometheus scrapes the server: every metric against what the load generator counted"
tools/build.sh release catserved catctl serve_load write_checkpoint
python3 tests/operations/prometheus_test.py build/release "$(tools/install_prometheus.sh)"

stage "ThreadSanitizer: what has threads below the server"
threaded=(engine_test snapshot_test engine_golden_test engine_soak_test thread_pool_test
  rows_contract_test heads_contract_test attention_contract_test prefill_contract_test)
tools/build.sh tsan "${threaded[@]}"
ctest --test-dir build/tsan --output-on-failure -j "$jobs" \
  -R "^($(IFS='|' && echo "${threaded[*]}"))\$"

stage "soak: mixed load for $soak_seconds s"
SOAK_SECONDS=$soak_seconds tools/soak.sh

stage "AddressSanitizer and UndefinedBehaviorSanitizer: every test"
tools/build.sh asan
ctest --test-dir build/asan --output-on-failure -j "$jobs"
