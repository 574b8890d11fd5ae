"""Files of auth tokens."""

from pathlib import Path

from tunnel_rs.config.files import read_text
from tunnel_rs.errors import ConfigError
from tunnel_rs.proto.tokens import parse_token_file
from tunnel_rs.values import Secret


def read_tokens(path: Path) -> tuple[Secret[str], ...]:
    """The tokens of a file, each once. Raises ConfigError, also when there is none."""
    tokens = parse_token_file(read_text(path), str(path))
    if not tokens:
        raise ConfigError(f"{path}: holds no token; make one with `tunnel-rs generate-token`")
    return tokens
