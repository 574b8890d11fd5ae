#!/bin/sh
# Run the interop suites against the real servers of iroh: `iroh-relay` and `iroh-dns-server`.
#
#   tests/interop/rust_servers.sh [DIRECTORY]
#
# Programs that are not on PATH (or named by IROH_RELAY_BIN and IROH_DNS_SERVER_BIN) are built into
# DIRECTORY, by default a folder of the user's cache; that takes some minutes, once. Where there is
# no cargo it says so and ends well: these suites are extra. PYTHON names the interpreter that has
# the test dependencies; what is in PYTEST_ARGS goes to pytest.
set -eu

here=$(CDPATH= cd -- "$(dirname -- "$0")/../.." && pwd)
directory=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/tunnel-rs/rust-servers}
relay=${IROH_RELAY_BIN:-$(command -v iroh-relay || true)}
dns=${IROH_DNS_SERVER_BIN:-$(command -v iroh-dns-server || true)}

# build CRATE VERSION [OPTIONS]: its program in $directory/bin, unless it is there already.
build() {
    crate=$1 version=$2
    shift 2
    if [ -x "$directory/bin/$crate" ]; then
        return 0
    fi
    if ! command -v cargo >/dev/null 2>&1; then
        echo "skipped: $crate is not installed, and there is no cargo to build it" >&2
        return 1
    fi
    echo "building $crate $version into $directory (once)" >&2
    cargo install --locked --root "$directory" --version "$version" "$@" "$crate"
}

if [ -z "$relay" ] && build iroh-relay '^1' --features server; then
    relay=$directory/bin/iroh-relay
fi
if [ -z "$dns" ] && build iroh-dns-server '>=0.90'; then
    dns=$directory/bin/iroh-dns-server
fi
if [ -z "$relay$dns" ]; then
    exit 0
fi

cd "$here"
# Without a program its own suites skip, with the reason.
IROH_RELAY_BIN=$relay IROH_DNS_SERVER_BIN=$dns exec "${PYTHON:-python3}" -m pytest \
    tests/interop/test_relay_rust.py tests/interop/test_qad_rust.py \
    tests/interop/test_dns_server_rust.py ${PYTEST_ARGS:-}
