#!/usr/bin/env bash
# Gathers everything that the container image holds into a folder: catserved and catctl, the shared
# libraries that they load with their copyright notices, a user without rights, a configuration.
#   tools/image_root.sh BUILD_DIR OUT_DIR
set -euo pipefail
cd "$(dirname "$0")/.."
build=$1
out=$2
programs=("$build/server/catserved" "$build/server/catctl")
umask 022

install -D -m 755 --strip -t "$out/usr/bin" "${programs[@]}"
# The loader comes without an arrow: "/lib64/ld-linux-x86-64.so.2 (0x...)".
libraries=$(ldd "${programs[@]}" |
  sed -nE 's/.*=> (\/[^ ]+) .*/\1/p; s/^\s+(\/[^ ]+) .*/\1/p' | sort -u)
for library in $libraries; do
  # Below /usr, where a Debian system with merged folders has them too.
  install -D -m 755 "$library" "$out/usr/${library#/usr/}"
  # dpkg knows merged folders by their old or their new name.
  package=$(dpkg-query -S "$library" "/usr$library" 2>/dev/null | head -1 | cut -d: -f1) || true
  notice=/usr/share/doc/${package:-none}/copyright
  if [ -e "$notice" ]; then install -D -m 644 "$notice" "$out$notice"; fi
done
ln -s usr/lib "$out/lib"
ln -s usr/lib64 "$out/lib64"
install -D -m 644 LICENSE "$out/usr/share/doc/catserve/copyright"
install -D -m 644 deploy/container/catserve.yaml "$out/etc/catserve/catserve.yaml"
echo 'catserve:x:65532:65532:catserve:/:/sbin/nologin' >"$out/etc/passwd"
echo 'catserve:x:65532:' >"$out/etc/group"
install -d "$out/model" "$out/proc" "$out/tmp"
