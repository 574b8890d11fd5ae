"""The reference of all options, in Markdown, from the schema.

`python -m tunnel_rs.config.reference >docs/CONFIGURATION.md` writes it anew.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from tunnel_rs.config import ice_schema, schema, vpn_schema
from tunnel_rs.config.option import Exclusion, Option, Role
from tunnel_rs.errors import ExitStatus

_HEAD = """\
# Configuration

<!-- Written by `python -m tunnel_rs.config.reference`; change `config/schema.py`,
`config/ice_schema.py` or `config/vpn_schema.py` instead. -->

Every option of `tunnel-rs server` and `tunnel-rs client`, with its key in a TOML file, its flag on
the command line and its environment variable.

- A value is taken from the command line, else from the environment, else from the file, else it is
  the default. A list replaces the whole list of a lower rank; lists are never merged.
- A file is named by `-c FILE`, or is `~/.config/tunnel-rs/server.toml` (`client.toml`) with
  `--default-config`; `XDG_CONFIG_HOME` is respected. It begins with `role = "server"` or
  `role = "client"`, and `mode = "iroh"`.
- Unknown keys, keys of the other role and values of a wrong type are errors (exit status 6); wrong
  options on the command line are errors with exit status 2.
- `~` is expanded in every path. A relative path, also one in a file, is relative to the working
  directory.
- `tunnel-rs check-config FILE` checks a file without starting anything, and shows where each value
  comes from.
"""


_ICE = """\
## tunnel-rs-ice

A file begins with `role = "server"` or `role = "client"`, and `mode = "manual"` or
`mode = "nostr"`; its table is `[manual]` or `[nostr]` accordingly, which is written `MODE` below.
`~/.config/tunnel-rs/server_ice.toml` (`client_ice.toml`) is the file of `--default-config`. All
else is as above, and `tunnel-rs-ice check-config FILE` checks a file. Both sides of nostr mode need
a key of their own and the other's npub.
"""

_VPN = """\
## tunnel-rs-vpn

A file begins with `role = "vpnserver"` or `role = "vpnclient"`, and `mode = "iroh"`;
`~/.config/tunnel-rs/vpn_server.toml` (`vpn_client.toml`) is the file of `--default-config`. All
else is as above, and `tunnel-rs-vpn check-config FILE` checks a file. `exec` takes the options of a
client. See [VPN](VPN.md).
"""

_TAIL = """\
## While a server runs

SIGHUP, or `tunnel-rs reload`, makes a server read file, environment and the files of tokens and
client keys again, and use the allowed networks, tokens, keys, `max_sessions` and `udp_idle_timeout`
found there. Who is no longer let in is sent away, sessions to what is no longer allowed end, all
others go on. When anything is wrong it says so and changes nothing. The other options need a
restart. A VPN server takes the tokens anew. SIGINT and SIGTERM end a server or client in order:
sessions get 5 seconds to finish; a second signal ends it at once. See [OPERATIONS](OPERATIONS.md).

## Exit status
"""

MEANINGS = {
    ExitStatus.DONE: "done",
    ExitStatus.FAILURE: "failure of another kind",
    ExitStatus.USAGE: "a mistake on the command line",
    ExitStatus.AUTH_REFUSED: "the server did not accept the token",
    ExitStatus.PEER_NOT_FOUND: "no way to the server was found",
    ExitStatus.UNREACHABLE: "the server was not reached, or did not answer in time",
    ExitStatus.INVALID_CONFIG: "a mistake in a configuration, key or token file or the environment",
    ExitStatus.HUNG_UP: "ended by SIGHUP (a client; a server reads its settings again)",
    ExitStatus.INTERRUPTED: "ended by SIGINT (Ctrl-C)",
    ExitStatus.TERMINATED: "ended by SIGTERM",
}
"""What each exit status means, in a few words."""


def reference() -> str:
    """The whole page."""
    sections = [
        *_section("## Server", schema.options_for(Role.SERVER)),
        *_section("## Client", schema.options_for(Role.CLIENT)),
        *_exclusions("## What excludes what", schema.EXCLUSIONS),
        _ICE,
        *_section("### Server of tunnel-rs-ice", _ice_options(Role.SERVER)),
        *_section("### Client of tunnel-rs-ice", _ice_options(Role.CLIENT)),
        *_exclusions("### What excludes what in tunnel-rs-ice", ice_schema.EXCLUSIONS),
        _VPN,
        *_section("### Server of tunnel-rs-vpn", vpn_schema.SERVER_OPTIONS),
        *_section("### Client of tunnel-rs-vpn", vpn_schema.CLIENT_OPTIONS),
        *_exclusions("### What excludes what in tunnel-rs-vpn", vpn_schema.EXCLUSIONS),
    ]
    return "\n".join([_HEAD, *sections, _TAIL, *_exit_statuses()])


def _exit_statuses() -> Iterator[str]:
    for status in ExitStatus:
        yield f"- {status.value}: {MEANINGS[status]}"
    yield ""


def _ice_options(role: Role) -> Iterator[Option[object]]:
    """The options of both modes; keys that both have begin with MODE."""
    for option in ice_schema.all_options(role):
        modes = ice_schema.modes_of(option.name)
        inside = next(o for o in ice_schema.options_for(role, modes[0]) if o.name == option.name)
        if len(modes) == 1:
            yield inside
            continue
        key, *aliases = (re.sub(rf"^{modes[0]}\.", "MODE.", k) for k in inside.keys or ("",))
        doc = inside.doc.replace(f"[[{modes[0]}.", "[[MODE.")
        yield replace(inside, key=key or None, aliases=tuple(aliases), doc=doc)


def _section(title: str, options: Iterable[Option[object]]) -> Iterator[str]:
    yield f"{title}\n"
    yield "| Key in the file | Command line | Environment | Value | Default | Meaning |"
    yield "|---|---|---|---|---|---|"
    for option in options:
        yield _row(option)
    yield ""


def _row(option: Option[object]) -> str:
    cells = [
        _code(option.keys),
        _code(_flags(option)),
        _code([option.variable] if option.variable else []),
        _value(option),
        _default(option.default),
        option.doc,
    ]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _code(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words) or "-"


def _flags(option: Option[object]) -> list[str]:
    if option.flags and option.kind.switch and option.default is True:
        return [option.flag, f"--no-{option.flag.removeprefix('--')}"]
    return [f"{flag} {option.metavar}".rstrip() for flag in option.flags]


def _value(option: Option[object]) -> str:
    return option.kind.expected + (", repeatable" if option.kind.repeatable else "")


def _default(value: object) -> str:
    if value is None or value == ():
        return "-"
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _exclusions(title: str, exclusions: Iterable[Exclusion]) -> Iterator[str]:
    yield f"{title}\n"
    yield "Two of a row in one source are an error; in two sources the higher rank is used.\n"
    for exclusion in exclusions:
        both = f"`{exclusion.first.name}` and `{exclusion.second.name}`"
        together = exclusion.together_on_command_line
        yield f"- {both}{' (may be combined on the command line)' if together else ''}"
    yield ""


if __name__ == "__main__":
    print(reference(), end="")
