# Thin: each target says what it does, the work is in CMake and tools/.
.DEFAULT_GOAL := help
BUILD := build/release
JOBS ?= $(shell nproc)
MODEL ?= models/text
LISTEN ?= 127.0.0.1:8500
METRICS ?= 127.0.0.1:9500
export CCACHE_DIR ?= $(CURDIR)/.cache/ccache
export CCACHE_MAXSIZE ?= 2G

.PHONY: help deps build demo test check check-deploy soak serve bench bench-counts bench-peer \
  bench-serve cuda gpu-check evaluate format clean

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

deps:
	@tools/install_deps.sh

build: deps  ## install what is missing and build everything
	@tools/build.sh release

demo: build  ## serve the shipped model, stream a prompt at two chunk sizes, show what each cost
	@tools/demo.sh $(BUILD)

test: build  ## build and run every test
	@ctest --test-dir $(BUILD) --output-on-failure -j $(JOBS)

check: deps  ## format, clang-tidy, short fuzzing, ThreadSanitizer, Address- and UBSanitizer
	@tools/check.sh

check-deploy: build  ## chart, container, rules, dashboard, Python client against their own validators
	@tools/check_deploy.sh $(BUILD)

soak: deps  ## half an hour of mixed load under sanitizers (SOAK_SECONDS=1800)
	@tools/soak.sh

serve: build  ## keep a server running (MODEL=..., LISTEN=..., METRICS=...); Ctrl-C ends it
	@exec $(BUILD)/server/catserved --model=$(MODEL) --listen_address=$(LISTEN) \
	  --metrics_address=$(METRICS)

bench: build  ## engine and kernel benchmarks on this machine's CPU, a short table last
	@tools/bench.sh $(BUILD)

bench-counts: build  ## count the instructions of hot operations (valgrind), fail on a regression
	@tools/instruction_counts.py $(BUILD)

bench-serve: build  ## load against the real server, a short table last (EXPERIMENT=name: one in full)
	@python3 tools/bench_serve.py $(BUILD) $(if $(EXPERIMENT),--experiment $(EXPERIMENT))

bench-peer: build  ## this engine and server beside llama.cpp's, by turns (an hour; builds llama.cpp)
	@tools/install_peer.sh
	@.cache/peer/venv/bin/python tools/bench_peer.py $(BUILD)
	@.cache/peer/venv/bin/python tools/bench_peer_served.py $(BUILD)

cuda: deps  ## where nvcc is found: check the CUDA kernels, build a server with them; runs nothing
	@python3 tools/gpu_compile.py
	@tools/build.sh gpu catserved

gpu-check:  ## on a machine with a GPU: all that it can show, in eight minutes (docs/cuda.md)
	@python3 tools/gpu_check.py

evaluate: build  ## measure quality and cost at every chunk size, write cards and docs (MODEL=, TEXT=)
	@/usr/bin/python3 tools/evaluate $(BUILD) $(if $(filter command,$(word 1,$(origin MODEL))),\
	  --model $(MODEL)) $(if $(TEXT),--text $(TEXT)) $(if $(CHECK),--check)

format:  ## rewrite the sources in the house's layout
	@git ls-files '*.cc' '*.h' '*.cuh' '*.cu' '*.proto' | grep -v '^proto/' | xargs clang-format -i

clean:  ## remove what was built
	@rm -rf build
