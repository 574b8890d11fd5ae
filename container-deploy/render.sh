#!/bin/sh
# Write the plain manifests in kubernetes/ from the chart in helm/: with `--check`, see whether they
# are up to date. Needs helm.
set -eu
cd "$(dirname "$0")"
export LC_ALL=C
status=0
render() {
  file=kubernetes/$1
  shift
  text=$(helm template tunnel-rs helm/tunnel-rs --namespace tunnel-rs "$@")
  head="# Written by container-deploy/render.sh from the chart in helm/; do not edit."
  if [ "$check" ]; then
    printf '%s\n%s\n' "$head" "$text" | diff -u "$file" - || status=1
  else
    printf '%s\n%s\n' "$head" "$text" >"$file"
  fi
}
check=
[ "${1:-}" != --check ] || check=yes
render server.yaml
render own-infrastructure.yaml \
  --set relay.enabled=true,relay.url=https://relay.example.org \
  --set relay.tlsSecret=tunnel-rs-relay-tls,relay.tokenSecret=tunnel-rs-relay-token \
  --set discovery.enabled=true,discovery.url=https://dns.example.org/pkarr
exit "$status"
