#!/bin/sh
# Try an image as it is meant to run: without root, without rights, with nothing to write to. A
# relay, a discovery server, a server and a client, each in a container of its own on a network
# without a way out, pass a page; then each has a second to end.
#
#   container-deploy/try-image.sh tunnel-rs
#   ENGINE=podman container-deploy/try-image.sh tunnel-rs
set -eu
image=${1:?usage: try-image.sh IMAGE}
engine=${ENGINE:-docker}
mine=tunnel-rs-try-$$
hardened='--read-only --cap-drop ALL --security-opt no-new-privileges --tmpfs /tmp'

fail() {
  printf 'try-image.sh: %s\n' "$*" >&2
  exit 1
}

clean() {
  for part in page client server discovery relay; do
    "$engine" rm --force "$mine-$part" >/dev/null 2>&1 || :
  done
  "$engine" network rm "$mine" >/dev/null 2>&1 || :
  "$engine" volume rm "$mine-secrets" "$mine-records" >/dev/null 2>&1 || :
}
trap clean EXIT
trap 'exit 130' INT TERM HUP

# The options are words.
# shellcheck disable=SC2086
once() { "$engine" run --rm --network none $hardened "$@"; }

# A container that stays: its part, then options. Others of the network know it by its part.
# shellcheck disable=SC2086
start() {
  part=$1
  shift
  "$engine" run --detach --name "$mine-$part" $hardened "$@" >/dev/null
}

# Whether a page can be read in a container: its part, the page.
reads() {
  "$engine" exec "$mine-$1" python -c \
    'import sys, urllib.request as u; sys.stdout.buffer.write(u.urlopen(sys.argv[1], timeout=5).read())' \
    "$2" 2>/dev/null
}
until_it_reads() {
  for _ in $(seq 30); do
    if reads "$@"; then return; fi
    sleep 1
  done
  "$engine" logs "$mine-$1" >&2
  fail "$1 does not answer at $2"
}

for program in tunnel-rs tunnel-rs-ice tunnel-rs-vpn; do
  once --entrypoint "$program" "$image" --version
done
[ "$(once --entrypoint id "$image" -u)" = 10001 ] || fail "it is not run as user 10001"
if "$engine" run --rm --network none --entrypoint sh "$image" -c 'echo >/opt/tunnel-rs/x' 2>/dev/null; then
  fail "the programs can be written to"
fi
once "$image" demo

# A new volume gets the owner that the image's directory has.
"$engine" volume create "$mine-secrets" >/dev/null
id=$(once --volume "$mine-secrets:/var/lib/tunnel-rs" --entrypoint sh "$image" -c \
  'umask 077 && cd /var/lib/tunnel-rs && tunnel-rs generate-token >tokens.txt && tunnel-rs generate-server-key -o server.key >&2 && tunnel-rs show-server-id -s server.key')
secrets="--volume $mine-secrets:/run/secrets:ro"
reach='--relay-url http://relay:8080 --dns-server http://discovery:8080/pkarr'

"$engine" network create --internal "$mine" >/dev/null
config=$(cd "$(dirname "$0")" && pwd)/config
start relay --network "$mine" --network-alias relay --volume "$config:/etc/tunnel-rs:ro" \
  "$image" relay --config-path /etc/tunnel-rs/relay.toml
start discovery --network "$mine" --network-alias discovery --volume "$config:/etc/tunnel-rs:ro" \
  --volume "$mine-records:/var/lib/tunnel-rs" "$image" dns-server --config /etc/tunnel-rs/dns_server.toml
until_it_reads relay http://127.0.0.1:8080/healthz >/dev/null
until_it_reads discovery http://127.0.0.1:8080/healthz >/dev/null
# shellcheck disable=SC2086
start server --network "$mine" $secrets "$image" server $reach --allowed-tcp 127.0.0.0/8 \
  --secret-file /run/secrets/server.key --auth-tokens-file /run/secrets/tokens.txt \
  --metrics-bind 127.0.0.1:9464
until_it_reads server http://127.0.0.1:9464/healthz >/dev/null
until_it_reads server http://127.0.0.1:9464/readyz >/dev/null
start page --network "container:$mine-server" --stop-timeout 1 --entrypoint python "$image" \
  -m http.server 8000 --bind 127.0.0.1 --directory /opt/tunnel-rs
# shellcheck disable=SC2086
start client --network "$mine" $secrets "$image" client $reach -n "$id" \
  --auth-token-file /run/secrets/tokens.txt -s tcp://127.0.0.1:8000 -t 127.0.0.1:2000
page=$(until_it_reads client http://127.0.0.1:2000/pyvenv.cfg)
[ "$page" = "$(once --entrypoint cat "$image" /opt/tunnel-rs/pyvenv.cfg)" ] || fail "another page came: $page"
echo "a page went through: $("$engine" logs "$mine-client" 2>&1 | grep 'is up by')"

for part in client server discovery relay; do
  # A second after SIGTERM it is killed, which would be status 137.
  "$engine" stop --time 1 "$mine-$part" >/dev/null
  status=$("$engine" inspect --format '{{.State.ExitCode}}' "$mine-$part")
  [ "$status" = 143 ] || fail "$part ended with status $status, not with 143 within a second of SIGTERM"
done
bytes=$("$engine" image inspect --format '{{.Size}}' "$image")
echo "$image: all as it should be; $((bytes / 1000000)) MB with its base"
