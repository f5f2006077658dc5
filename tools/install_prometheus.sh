#!/usr/bin/env bash
# Unpacks Debian's Prometheus below .cache/prometheus, without installing it: no service starts.
# Prints the folder of its programs (prometheus, promtool). Needs no privileges.
set -euo pipefail
cd "$(dirname "$0")/.."

programs=$PWD/.cache/prometheus/usr/bin
if [ ! -x "$programs/prometheus" ]; then
  mkdir -p .cache
  work=$(mktemp -d .cache/prometheus.XXXXXX)
  trap 'rm -rf "$work"' EXIT
  if ! (cd "$work" && ../../tools/retry.sh apt-get download prometheus) >"$work/log" 2>&1; then
    cat "$work/log" >&2
    echo "Downloading Debian's package prometheus failed: run apt-get update, then this again." >&2
    exit 1
  fi
  dpkg-deb -x "$work"/prometheus_*.deb "$work/unpacked"
  rm -rf .cache/prometheus
  mv "$work/unpacked" .cache/prometheus
fi
echo "$programs"
