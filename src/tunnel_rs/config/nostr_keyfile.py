"""The file that holds our Nostr key: one line, nsec1... or hex, readable by its owner only."""

from pathlib import Path

from tunnel_rs.config.files import read_text
from tunnel_rs.config.keyfile import write_key_file
from tunnel_rs.errors import ConfigError
from tunnel_rs.proto.nostr_keys import NostrSecretKey


def read_nostr_key(path: Path) -> NostrSecretKey:
    """Raises ConfigError, one line naming the file, never its content."""
    lines = [line.strip() for line in read_text(path).splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines:
        raise ConfigError(
            f"{path}: is empty; make a key with `tunnel-rs-ice generate-nostr-key -o FILE`"
        )
    if len(lines) > 1:
        raise ConfigError(f"{path}: holds {len(lines)} lines; a key file has one")
    try:
        return NostrSecretKey.parse(lines[0])
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None


def write_nostr_key(path: Path, key: NostrSecretKey, force: bool) -> None:
    """Write a new key file with mode 0600. Raises LocalError, also when it exists without
    `force`."""
    write_key_file(path, f"{key.nsec}\n".encode(), force)
