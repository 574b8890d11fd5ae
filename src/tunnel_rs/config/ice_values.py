"""The mode of `tunnel-rs-ice`: the command line names it, or the file does."""

from tunnel_rs.config.files import ConfigFile
from tunnel_rs.config.ice_schema import Mode
from tunnel_rs.errors import ConfigError, UsageError
from tunnel_rs.values import quoted


def find_mode(given: str | None, file: ConfigFile | None) -> Mode:
    """The mode to run in. Raises UsageError without any, ConfigError when both differ."""
    written = None if file is None else mode_of(file)
    if given is None and written is None:
        raise UsageError(
            "no mode: write `manual` or `nostr` after the command, or give a file with one (-c)"
        )
    if file is not None and given is not None and written is not Mode(given):
        raise ConfigError(
            f'{file.path}: mode: the file says "{written}", the command line {given}; '
            "leave the mode out, or use another file"
        )
    return Mode(given) if given is not None else written or Mode.MANUAL


def mode_of(file: ConfigFile) -> Mode:
    """The mode that a file is for. Raises ConfigError."""
    value = file.content.get("mode")
    if value is None:
        raise ConfigError(
            f'{file.path}: mode is missing; write mode = "manual" or mode = "nostr" at the top'
        )
    if value not in set(Mode):
        shown = quoted(value) if isinstance(value, str) else "something else"
        hint = "; this file is for tunnel-rs" if value == "iroh" else ""
        raise ConfigError(f'{file.path}: mode: expected "manual" or "nostr", got {shown}{hint}')
    return Mode(str(value))
