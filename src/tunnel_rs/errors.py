"""One error tree: what went wrong, whether to try again, and the exit status it ends in.

A message is one line for a person: what, where, and what to do. It never holds a secret.
"""

from enum import IntEnum


class ExitStatus(IntEnum):
    """Process exit statuses of all programs (spec `cli.md`, "Habits of all three")."""

    DONE = 0
    FAILURE = 1
    USAGE = 2
    AUTH_REFUSED = 3
    PEER_NOT_FOUND = 4
    UNREACHABLE = 5
    INVALID_CONFIG = 6
    HUNG_UP = 129
    INTERRUPTED = 130
    TERMINATED = 143


class TunnelError(Exception):
    """Base of every error that is shown to a user as one line.

    `transient` says whether trying the same thing again later may succeed.
    """

    exit_status = ExitStatus.FAILURE
    transient = False


class UsageError(TunnelError):
    """The command line asks for something that cannot be."""

    exit_status = ExitStatus.USAGE


class ConfigError(TunnelError):
    """A configuration file, environment variable, key file or token file is wrong."""

    exit_status = ExitStatus.INVALID_CONFIG


class AuthRefusedError(TunnelError):
    """The server did not accept our token."""

    exit_status = ExitStatus.AUTH_REFUSED


class PeerNotFoundError(TunnelError):
    """No way to reach the peer is known: nothing to dial."""

    exit_status = ExitStatus.PEER_NOT_FOUND
    transient = True


class UnreachableError(TunnelError):
    """The peer did not answer on any way tried, or stopped answering."""

    exit_status = ExitStatus.UNREACHABLE
    transient = True


class WrongPeerError(TunnelError):
    """Somebody answered, but proved another EndpointId than the one asked for."""

    exit_status = ExitStatus.UNREACHABLE


class ProtocolError(TunnelError):
    """The peer sent what the protocol does not allow."""


class LocalError(TunnelError):
    """This machine refused: port in use, no permission, no such file."""


class TargetError(TunnelError):
    """A forwarded target cannot be used: not allowed, not resolvable, refused, unreachable."""


_DONE = ("", "done")


class LinkClosedError(TunnelError):
    """The link to the peer has ended.

    `code` and `reason` are the application's when `by_application`, else QUIC's transport error
    (RFC 9000 section 20.1). `by_peer` tells who ended it; an idle timeout counts as neither.
    """

    exit_status = ExitStatus.UNREACHABLE
    transient = True

    def __init__(
        self, code: int, reason: str, *, by_peer: bool = False, by_application: bool = False
    ) -> None:
        if by_peer and by_application and code == 0:
            # Both our programs say "done"; others say nothing, or a word of theirs.
            text = "the other side has ended it" + (f" ({reason})" if reason not in _DONE else "")
        else:
            text = reason or f"closed with code {code}"
        super().__init__(text)
        self.code = code
        self.reason = reason
        self.by_peer = by_peer
        self.by_application = by_application


class StreamResetError(TunnelError):
    """A stream ended abruptly: the peer reset it, or its link closed."""

    def __init__(self, code: int, message: str = "the stream was reset by the peer") -> None:
        super().__init__(message)
        self.code = code
