#!/usr/bin/env bash
# Installs the Debian packages of a list that are missing: tools/install_deps.sh [LIST], by default
# tools/debian_packages.txt. Says nothing and needs no privileges when all are there.
set -euo pipefail
cd "$(dirname "$0")/.."
list=${1:-tools/debian_packages.txt}

missing=()
while read -r package; do
  case "$package" in '' | '#'*) continue ;; esac
  status=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)
  [ "$status" = installed ] || missing+=("$package")
done < "$list"
[ ${#missing[@]} -eq 0 ] && exit 0

if ! command -v apt-get >/dev/null; then
  echo "These packages are missing and this is no Debian system: ${missing[*]}" >&2
  echo "Install their equivalents by hand, then run make again." >&2
  exit 1
fi
sudo=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || {
    echo "Run as root, or install sudo: ${#missing[@]} packages are missing: ${missing[*]}" >&2
    exit 1
  }
  sudo=(sudo)
fi
echo "Installing ${#missing[@]} Debian packages: ${missing[*]}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt=("${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300)
if ! { tools/retry.sh "${apt[@]}" update &&
  tools/retry.sh "${apt[@]}" install -y --no-install-recommends "${missing[@]}"; } \
  >"$log" 2>&1; then
  cat "$log" >&2
  echo "Installing packages failed; see above. Then run make again." >&2
  exit 1
fi
