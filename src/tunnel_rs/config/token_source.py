"""The tokens a server accepts: some given for good, the others in a file that may change."""

from pathlib import Path

from tunnel_rs.config.files import read_text
from tunnel_rs.errors import ConfigError
from tunnel_rs.proto.tokens import parse_token_file
from tunnel_rs.reports import Notice, Reporter
from tunnel_rs.values import Secret

Tokens = tuple[Secret[str], ...]


def read_tokens(path: Path) -> Tokens:
    """The tokens of a file, without repetitions. Raises ConfigError, also when there is none."""
    tokens = parse_token_file(read_text(path), str(path))
    if not tokens:
        raise ConfigError(f"{path}: holds no token; make one with `tunnel-rs generate-token`")
    return tuple(dict.fromkeys(tokens))


class TokenSource:
    """Call it for the tokens accepted now; call `reload` when the file may have changed."""

    def __init__(self, given: Tokens, file: Path | None = None) -> None:
        """Reads the file. Raises ConfigError."""
        self._given = given
        self._file = file
        self._tokens = self._read()

    def __call__(self) -> Tokens:
        return self._tokens

    def reload(self, report: Reporter) -> None:
        """Read the file again. When it is bad the old tokens stay and a warning is reported."""
        try:
            self._tokens = self._read()
        except ConfigError as error:
            report(Notice("warning", f"{error}; the tokens in use stay as they are"))
        else:
            report(Notice("info", f"auth tokens: {len(self._tokens)} token(s) configured"))

    def _read(self) -> Tokens:
        from_file = read_tokens(self._file) if self._file else ()
        return tuple(dict.fromkeys(self._given + from_file))
