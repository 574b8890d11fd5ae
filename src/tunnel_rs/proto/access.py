"""Who may come in: tokens and client keys, each with what it grants.

The files have one a line, blank lines and `#` comments ignored, options behind it (`proto.grants`):

    iabcdefghijklmnopg name=alice expires=2027-01-31        # a tokens file
    d75a980182b1...707511a name=build-host tcp=10.0.0.7     # a file of client keys

Source of the plain form: spec `tunnel-protocol.md`, "Tokens".
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Generic, TypeVar

from tunnel_rs.errors import ConfigError
from tunnel_rs.proto.auth import find_token
from tunnel_rs.proto.grants import UNLIMITED, Grant, parse_grant
from tunnel_rs.proto.tokens import check_token
from tunnel_rs.values import EndpointId, Secret

Credential = Secret[str] | EndpointId
"""What somebody comes in by: a token, or the key that the handshake has proved."""

NOT_ACCEPTED = "the token is not accepted"
"""What everybody is told who is not let in, whatever the reason: only we know more."""

C = TypeVar("C", Secret[str], EndpointId)

_BLANKS = re.compile("[ \t\r]+")


@dataclass(frozen=True, slots=True)
class Entry(Generic[C]):
    """One line; `where` it stands, for errors."""

    credential: C
    grant: Grant = UNLIMITED
    where: str = field(default="", compare=False)


AnyEntry = Entry[Secret[str]] | Entry[EndpointId]


@dataclass(frozen=True, slots=True)
class Pass:
    """What somebody who was let in holds."""

    credential: Credential
    grant: Grant

    @property
    def name(self) -> str:
        """How people call the holder; for a token without a name something that does not tell
        the token."""
        if self.grant.name or isinstance(self.credential, EndpointId):
            return self.grant.name
        digest = hashlib.sha256(b"tunnel-rs token name\0" + self.credential.reveal().encode())
        return f"token-{digest.hexdigest()[:8]}"

    @property
    def by(self) -> str:
        return "key" if isinstance(self.credential, EndpointId) else "token"


@dataclass(frozen=True)
class AccessList:
    """All who may come in. The empty one lets nobody in."""

    tokens: tuple[Entry[Secret[str]], ...] = ()
    clients: tuple[Entry[EndpointId], ...] = ()

    def judge(self, peer: EndpointId, token: Secret[str], wall: float) -> Pass | str:
        """What `peer`, whose key is proved, may do with `token` at `wall` (seconds since 1970);
        else why it is not let in, for us alone. The time this takes tells nothing of the token."""
        index = find_token(token, [entry.credential for entry in self.tokens])
        held = [_pass(entry) for entry in self.clients if entry.credential == peer]
        held += [] if index is None else [_pass(self.tokens[index])]
        for candidate in held:
            if not candidate.grant.has_expired(wall):
                return candidate
        if held:
            return f"the {held[0].by} of {held[0].name or peer.short} has expired"
        return NOT_ACCEPTED

    def renew(self, held: Pass, wall: float) -> Pass | None:
        """What a pass that was given before is worth now; None when nothing."""
        entry = self._by_credential.get(held.credential)
        return None if entry is None or entry.grant.has_expired(wall) else _pass(entry)

    @cached_property
    def _by_credential(self) -> Mapping[Credential, AnyEntry]:
        return {entry.credential: entry for entry in self.entries}

    @property
    def entries(self) -> Iterator[AnyEntry]:
        yield from self.tokens
        yield from self.clients


def _pass(entry: AnyEntry) -> Pass:
    return Pass(entry.credential, entry.grant)


def of_tokens(*tokens: Secret[str]) -> AccessList:
    """Tokens without options."""
    return AccessList(tuple(map(Entry, tokens)))


def parse_token_file(text: str, name: str) -> tuple[Entry[Secret[str]], ...]:
    """The tokens of a file in their order, each once. `name` is the file's name for errors.
    Raises ConfigError naming file, line and reason, and never quoting the token."""
    return tuple(_entries(text, name, "token", check_token))


def parse_client_file(text: str, name: str) -> tuple[Entry[EndpointId], ...]:
    """The client keys (EndpointIds) of a file, likewise."""
    return tuple(_entries(text, name, "client", EndpointId.parse))


def _entries(text: str, name: str, kind: str, parse: Callable[[str], C]) -> Iterator[Entry[C]]:
    seen: dict[C, tuple[int, Grant]] = {}
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), start=1):
        words = [word for word in _BLANKS.split(line.partition("#")[0]) if word]
        if not words:
            continue
        where = f"{name}, line {number}"
        try:
            entry = Entry(parse(words[0]), parse_grant(words[1:]), where)
        except ValueError as error:
            raise ConfigError(f"{where}: {error}") from None
        before = seen.setdefault(entry.credential, (number, entry.grant))
        if before == (number, entry.grant):
            yield entry
        elif before[1] != entry.grant:
            raise ConfigError(
                f"{where}: the same {kind} as in line {before[0]}, with other "
                "options; keep one of the two"
            )
