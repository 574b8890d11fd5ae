#!/bin/sh
# Known holes in what we build on, and secrets in the files and in all of the history. Run through
# `make audit`. Everything is looked at, whatever is found before, and what could not be looked at
# counts as found: without the database of holes this fails.
set -u
cd "$(dirname "$0")/.." || exit
bin=$PWD/.venv/bin
PATH=$bin:$PATH
failed=
check() {
  title=$1
  shift
  echo "== $title"
  if "$@"; then
    echo "-- $title: good"
  else
    echo "-- $title: NOT GOOD, or could not be looked at (status $?)"
    failed=yes
  fi
}

# Random text is everywhere in locks and tests: what has the form of a known kind of secret counts.
files() {
  git ls-files -z | grep -zvE '^(tests|bench)/' | xargs -0 detect-secrets-hook \
    --disable-plugin HexHighEntropyString --disable-plugin Base64HighEntropyString \
    --disable-plugin KeywordDetector
}
history() {
  if ! command -v gitleaks >/dev/null; then
    command -v go >/dev/null || { echo "needs gitleaks or go"; return 1; }
    echo "fetching gitleaks"
    GOBIN=$bin go install github.com/zricethezav/gitleaks/v8@v8.30.1 || return 1
  fi
  gitleaks git --no-banner --redact --config .gitleaks.toml .
}

check "known holes in what we build on (pip-audit)" \
  pip-audit --require-hashes --disable-pip --strict --requirement constraints.txt
check "secrets in the files (detect-secrets)" files
check "secrets in the history (gitleaks)" history
[ -z "$failed" ]
