#!/bin/sh
# Run the tests with real iroh against other versions of it: `make iroh-versions`. Each version is
# installed into a folder of its own below build/, which comes before the pinned one.
#
#   PYTHON=.venv/bin/python tools/iroh_versions.sh [version...]
set -eu

PYTHON=${PYTHON:-python3}
[ $# -gt 0 ] || set -- 1.0.0 1.1.0 newest

for version in "$@"; do
    where=build/iroh/$version
    wanted=iroh
    [ "$version" = newest ] || wanted=iroh==$version
    rm -rf "$where"
    "$PYTHON" -m pip --quiet --disable-pip-version-check --no-input install \
        --no-deps --only-binary :all: --target "$where" "$wanted"
    echo "== $("$PYTHON" -c 'import importlib.metadata as m, sys
print("iroh", next(iter(m.distributions(name="iroh", path=sys.argv[1:]))).version)' "$where")"
    PYTHONPATH="$where" "$PYTHON" -m pytest --quiet \
        tests/interop/test_quic_iroh.py tests/interop/test_multipath_iroh.py \
        tests/interop/test_ways_iroh.py
    # These wait, nearly all the time.
    PYTHONPATH="$where" "$PYTHON" -m pytest --quiet --numprocesses 6 tests/interop/idle_iroh.py
done
