"""Advice to users, one line each."""

from tunnel_rs.config import schema
from tunnel_rs.config.build import exposed_secrets
from tunnel_rs.config.keyfile import exposure_warning
from tunnel_rs.config.sources import Values
from tunnel_rs.reports import Notice, Reporter


def warn_of_exposed_secrets(values: Values, report: Reporter) -> None:
    """Tell once that secrets on the command line are seen in the process list."""
    flags = exposed_secrets(values)
    if flags:
        text = f"{' and '.join(flags)}: other users of this machine can see it in the process list"
        report(Notice("info", f"hint: {text}; use a file or the environment"))


def warn_of_open_key_file(values: Values, report: Reporter) -> None:
    """Tell when other users may read the key file in use."""
    file = values.get(schema.SECRET_FILE) or values.get(schema.CLIENT_SECRET_FILE)
    warning = exposure_warning(file) if file else None
    if warning:
        report(Notice("warning", warning))
