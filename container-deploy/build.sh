#!/bin/sh
# Build the image of each Dockerfile with the engine that is here, and try it.
#
#   container-deploy/build.sh            slim and Alpine, as tunnel-rs:slim and tunnel-rs:alpine
#   container-deploy/build.sh slim
#
# ENGINE names the engine (docker, podman); BUILD_OPTIONS go to its `build`.
set -eu
cd "$(dirname "$0")/.."
for engine in ${ENGINE:-docker podman}; do
  if "$engine" info >/dev/null 2>&1; then
    export ENGINE="$engine"
    break
  fi
  engine=
done
if [ -z "$engine" ]; then
  echo "build.sh: no container engine runs here (tried ${ENGINE:-docker and podman}): start one, or name it with ENGINE=" >&2
  exit 1
fi
[ $# -gt 0 ] || set -- slim alpine
for base; do
  # Options are words.
  # shellcheck disable=SC2086
  "$engine" build ${BUILD_OPTIONS:-} --file "container-deploy/Dockerfile.$base" --tag "tunnel-rs:$base" .
  container-deploy/try-image.sh "tunnel-rs:$base"
done
