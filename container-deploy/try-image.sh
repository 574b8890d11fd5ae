#!/bin/sh
# Try an image as it is meant to run: without root, without rights, with nothing to write to.
#
#   container-deploy/try-image.sh tunnel-rs
set -eu
image=${1:?usage: try-image.sh IMAGE}
hardened='--rm --read-only --cap-drop ALL --security-opt no-new-privileges --tmpfs /tmp'

# The options are words.
# shellcheck disable=SC2086
run() { docker run $hardened "$@"; }

for program in tunnel-rs tunnel-rs-ice tunnel-rs-vpn; do
  run --entrypoint "$program" "$image" --version
done
[ "$(run --entrypoint id "$image" -u)" = 10001 ]
if run --entrypoint sh "$image" -c 'touch /opt/tunnel-rs/x' 2>/dev/null; then
  echo "the programs can be written to" >&2
  exit 1
fi
run --network none "$image" demo

# shellcheck disable=SC2086
relay=$(docker run --detach $hardened --publish 127.0.0.1:3340:3340 "$image" relay --dev)
trap 'docker stop "$relay" >/dev/null' EXIT
for _ in 1 2 3 4 5 6 7 8 9 10; do
  if curl --fail --silent http://127.0.0.1:3340/healthz; then
    echo "$image: all as it should be"
    exit 0
  fi
  sleep 1
done
docker logs "$relay" >&2
exit 1
