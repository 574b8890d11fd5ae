#!/bin/sh
# Install tunnel-rs, tunnel-rs-ice and tunnel-rs-vpn for the user who runs this: in an environment of
# their own, with the programs linked into ~/.local/bin. No root is needed, nothing else is touched.
#
#   sh install.sh                   the newest release
#   sh install.sh --prerelease      the newest version, also if it is a preview
#   sh install.sh v1.2.0            this version (a tag of the project, with or without the v)
#   sh install.sh --uninstall       remove it again; configuration and keys stay
#
# sh install.sh --help lists the rest. Packages come from where your pip is set up to get them.
set -eu

PACKAGE=tunnel-rs
PROGRAMS='tunnel-rs tunnel-rs-ice tunnel-rs-vpn'
MARK=.installed-by-tunnel-rs

usage() {
  cat <<'END'
Usage: install.sh [OPTION]... [VERSION]
  --prerelease            previews count as versions, too
  --from DIR              take packages from this directory of wheels alone, without a network
  --wheel FILE            install this wheel of tunnel-rs
  --sha256 HEX            what the wheel must hash to (with --wheel)
  --constraints FILE      versions and hashes of all that it needs (constraints.txt of the release):
                          whatever does not match is refused. Taken by itself when it is beside
                          this script; --no-constraints does without it
  --extras LIST           of uvloop and vpn, for example --extras uvloop,vpn
  --prefix DIR            where programs go to DIR/bin, the rest to DIR/share/tunnel-rs
                          (default: ~/.local)
  --python PROGRAM        the Python to use: 3.11 or newer (default: the first one found)
  --uninstall             remove what this script has installed
  -h, --help              this text
END
}

say() { printf '%s\n' "$*"; }
fail() {
  printf 'install.sh: %s\n' "$*" >&2
  exit 1
}
need_value() { [ "$2" -ge 2 ] || fail "$1 needs a value; see --help"; }

version='' prerelease='' from='' wheel='' sha256='' constraints='' use_constraints=yes
extras='' prefix="${HOME:?install.sh: HOME is not set}/.local" python='' uninstall=''
while [ $# -gt 0 ]; do
  case $1 in
    --prerelease) prerelease=yes ;;
    --no-constraints) use_constraints='' ;;
    --uninstall) uninstall=yes ;;
    -h | --help) usage; exit 0 ;;
    --from) need_value "$1" $#; from=$2; shift ;;
    --wheel) need_value "$1" $#; wheel=$2; shift ;;
    --sha256) need_value "$1" $#; sha256=$2; shift ;;
    --constraints) need_value "$1" $#; constraints=$2; shift ;;
    --extras) need_value "$1" $#; extras=$2; shift ;;
    --prefix) need_value "$1" $#; prefix=$2; shift ;;
    --python) need_value "$1" $#; python=$2; shift ;;
    -*) fail "no such option: $1; see --help" ;;
    *) [ -z "$version" ] || fail "more than one version: $version and $1"; version=${1#v} ;;
  esac
  shift
done
case $version in *[!0-9A-Za-z.+!-]*) fail "this is no version: $version" ;; esac
case $extras in *[!a-z,]*) fail "--extras: names with commas between them, for example uvloop,vpn" ;; esac
[ -z "$sha256" ] || [ -n "$wheel" ] || fail "--sha256 goes with --wheel"
[ -z "$version" ] || [ -z "$wheel" ] || fail "give a version or --wheel, not both"

case $prefix in /*) ;; *) prefix=$PWD/$prefix ;; esac
bin=$prefix/bin
home=$prefix/share/$PACKAGE

# Remove the links of ours; a file of that name that is somebody else's stays.
unlink_programs() {
  for program in $PROGRAMS; do
    if [ -L "$bin/$program" ]; then
      case $(readlink "$bin/$program") in "$home"/*) rm -f "$bin/$program" ;; esac
    fi
  done
}

if [ -n "$uninstall" ]; then
  [ -e "$home/$MARK" ] || fail "nothing of ours is in $home; was it installed with another --prefix?"
  unlink_programs
  rm -rf "$home"
  say "removed $home and the programs in $bin; your configuration and keys are where they were"
  exit 0
fi

is_good() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }
can_make_environments() { "$1" -c 'import ensurepip, venv' >/dev/null 2>&1; }
if [ -n "$python" ]; then
  is_good "$python" || fail "$python is no Python 3.11 or newer"
else
  for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
    if is_good "$candidate" && can_make_environments "$candidate"; then
      python=$candidate
      break
    fi
    if [ -z "$python" ] && is_good "$candidate"; then python=$candidate; fi
  done
  old=$(python3 -c 'import sys; print("; python3 is %d.%d" % sys.version_info[:2])' 2>/dev/null) || old=
  [ -n "$python" ] || fail "no Python 3.11 or newer was found$old. Install one (Debian, Ubuntu: apt install python3 python3-venv; Fedora: dnf install python3; macOS: brew install python3), or name it with --python"
fi
can_make_environments "$python" ||
  fail "$python cannot make environments: its venv module is missing (Debian, Ubuntu: apt install python3-venv)"

hash_of() {
  "$python" -c 'import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest())' "$1"
}
if [ -n "$wheel" ]; then
  [ -f "$wheel" ] || fail "there is no wheel $wheel"
  if [ -n "$sha256" ]; then
    found=$(hash_of "$wheel")
    [ "$found" = "$(printf %s "$sha256" | tr A-F a-f)" ] ||
      fail "$wheel is not what it should be: its SHA-256 is $found. Nothing was installed"
  fi
fi
here=$(dirname "$0")
if [ -z "$constraints" ] && [ -n "$use_constraints" ] && [ -f "$here/constraints.txt" ]; then
  constraints=$here/constraints.txt
fi
[ -z "$constraints" ] || [ -f "$constraints" ] || fail "there is no file $constraints"

for program in $PROGRAMS; do
  link=$bin/$program
  if [ -L "$link" ]; then
    case $(readlink "$link") in "$home"/*) continue ;; esac
  fi
  if [ -e "$link" ] || [ -L "$link" ]; then
    fail "$link is there and is not ours; move it away first, or choose another --prefix"
  fi
done

mkdir -p "$bin" "$home" 2>/dev/null || fail "cannot write to $prefix; choose another --prefix"
# The new environment is made beside the one in use, which stays until the new one is whole. It
# cannot be moved afterwards: its programs name the Python they run with.
new=$home/env-$$
trap 'rm -rf "$new"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
"$python" -m venv "$new" || fail "$python could not make an environment in $new"

pip() { "$new/bin/python" -m pip --disable-pip-version-check --no-input "$@"; }
set -- --quiet
[ -z "$from" ] || set -- "$@" --no-index --find-links "$from"
if [ -n "$constraints" ]; then
  say "installing what $PACKAGE needs, by the hashes in $constraints"
  pip install "$@" --require-hashes --requirement "$constraints" ||
    fail "what $PACKAGE needs could not be installed: see above. Nothing was changed"
  # All it needs is there; what extras bring on top is the exception.
  if [ -z "$extras" ]; then
    set -- "$@" --no-deps
  else
    say "note: what the extras bring is not in $constraints, and comes without a hash"
  fi
fi
[ -z "$prerelease" ] || set -- "$@" --pre
what=$PACKAGE${extras:+[$extras]}
if [ -n "$wheel" ]; then
  what=$wheel${extras:+[$extras]}
elif [ -n "$version" ]; then
  what=$what==$version
fi
say "installing $what"
pip install "$@" "$what" || fail "$what could not be installed: see above. Nothing was changed"
pip --quiet check || fail "the versions do not go together: see above. Nothing was changed"
for program in $PROGRAMS; do
  "$new/bin/$program" --version >/dev/null || fail "$program does not start. Nothing was changed"
done

for program in $PROGRAMS; do
  ln -s "$new/bin/$program" "$bin/.$program.$$"
  mv -f "$bin/.$program.$$" "$bin/$program"
done
: >"$home/$MARK"
trap - EXIT
for old in "$home"/env-*; do
  [ "$old" = "$new" ] || rm -rf "$old"
done

say "installed $("$bin/$PACKAGE" --version); the programs are in $bin: $PROGRAMS"
case :$PATH: in
  *:"$bin":*) ;;
  *)
    say "$bin is not in your PATH. Add it, for example with this line in ~/.profile (then log in anew):"
    # The user's shell is to expand it, not this one.
    # shellcheck disable=SC2016
    say "  export PATH=\"$bin:"'$PATH"'
    ;;
esac
