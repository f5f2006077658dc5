#!/usr/bin/env bash
# Installs what make check-deploy runs, into .cache/deploy (nothing of the system changes):
# a Python environment with the packages of tools/deploy_requirements.txt, and the programs of
# Debian packages, unpacked so that no service starts. Says nothing when all is there.
set -euo pipefail
cd "$(dirname "$0")/.."
cache=.cache/deploy
requirements=tools/deploy_requirements.txt
packages=(buildah golang-github-containers-common golang-github-containers-image
  libgpgme11 libsubid4)
mkdir -p "$cache"
tools/install_prometheus.sh >/dev/null

# Installs under a name that says what was asked for, so that a change installs anew.
stamp=$cache/installed-$(cat "$requirements" "$0" | sha256sum | cut -c 1-16)
[ -e "$stamp" ] && exit 0
echo "Installing the tools of $requirements and from Debian: ${packages[*]}"
rm -rf "$cache"/installed-* "$cache/debian"
[ -x "$cache/venv/bin/pip" ] || python3 -m venv "$cache/venv"
tools/retry.sh "$cache/venv/bin/pip" install --quiet --disable-pip-version-check -r "$requirements"
mkdir -p "$cache/debian" "$cache/archives"
(cd "$cache/archives" && ../../../tools/retry.sh apt-get download -qq "${packages[@]}") || {
  echo "apt-get download ${packages[*]} failed: run apt-get update, then this again" >&2
  exit 1
}
for archive in "$cache"/archives/*.deb; do
  dpkg-deb -x "$archive" "$cache/debian"
done
rm -rf "$cache/archives"
touch "$stamp"
