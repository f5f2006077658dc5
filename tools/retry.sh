#!/usr/bin/env bash
# Runs a command that asks the network for something, at most three times: tools/retry.sh COMMAND...
# What a mirror refuses now it mostly gives half a minute later.
for pause in 10 30; do
  "$@" && exit
  echo "failed, again in $pause s: $*" >&2
  sleep "$pause"
done
exec "$@"
