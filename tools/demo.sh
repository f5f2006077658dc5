#!/usr/bin/env bash
# Serves the shipped model, streams one prompt at two chunk sizes, and shows what each cost.
#   tools/demo.sh BUILD_DIR [MODEL_DIR]
set -euo pipefail
cd "$(dirname "$0")/.."
build=$1
model=${2:-models/text}
# Held-out text: the model has not seen it.
prompt=$(tr '\n' ' ' < "$model/heldout.txt" | cut -c 1-900)
work=$(mktemp -d)
server=
stop_server() {
  [ -n "$server" ] && kill -TERM "$server" 2>/dev/null && wait "$server" || true
  rm -rf "$work"
}
trap stop_server EXIT

"$build/server/catserved" --model="$model" --listen_address=127.0.0.1:0 --metrics_address= \
  --port_file="$work/port" 2>"$work/log" &
server=$!
for _ in $(seq 300); do
  [ -s "$work/port" ] && break
  kill -0 "$server" 2>/dev/null || { cat "$work/log" >&2; exit 1; }
  sleep 0.1
done
address=127.0.0.1:$(cat "$work/port")
"$build/server/catctl" wait --server="$address" || { cat "$work/log" >&2; exit 1; }
"$build/server/catctl" model --server="$address"

for chunk_size in 4 32; do
  printf '\n== chunk size %s ==\n... %s' "$chunk_size" "${prompt: -160}"
  "$build/server/catctl" generate --server="$address" --chunk-size "$chunk_size" --max-tokens 128 \
    --temperature 0.7 --top-k 40 --seed 7 --ignore-eos --stats "$prompt"
done
echo
echo "Next: make serve, then build/release/server/catctl generate --chunk-size 8 \"Once upon\""
