"""Files of auth tokens and of client keys."""

from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from tunnel_rs.config.files import read_text
from tunnel_rs.errors import ConfigError
from tunnel_rs.proto.access import Entry, parse_client_file, parse_token_file
from tunnel_rs.values import EndpointId, Secret

C = TypeVar("C", Secret[str], EndpointId)


def read_tokens(path: Path, *, may_be_empty: bool = False) -> tuple[Entry[Secret[str]], ...]:
    """The tokens of a file, each once. Raises ConfigError, also when there is none, unless it
    `may_be_empty`."""
    tokens = parse_token_file(read_text(path), str(path))
    if not tokens and not may_be_empty:
        raise ConfigError(f"{path}: holds no token; make one with `tunnel-rs generate-token`")
    return tokens


def read_clients(path: Path) -> tuple[Entry[EndpointId], ...]:
    """The client keys of a file, each once. It may be empty: the last one can be taken away."""
    return parse_client_file(read_text(path), str(path))


def joined(given: Iterable[Entry[C]], from_file: Iterable[Entry[C]]) -> tuple[Entry[C], ...]:
    """Both together, each credential once. Where it is in the file, its options there count."""
    entries = {entry.credential: entry for entry in given}
    entries.update({entry.credential: entry for entry in from_file})
    return tuple(entries.values())
