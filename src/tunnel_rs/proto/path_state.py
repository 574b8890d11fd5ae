"""What the engine tells of its paths: their state, and events when it changes."""

from collections.abc import Hashable
from dataclasses import dataclass

from aioquic.quic.events import QuicEvent


@dataclass(frozen=True, slots=True)
class PathState:
    """One path as it is now. Times are seconds, sizes bytes."""

    id: int
    address: Hashable
    is_validated: bool
    is_available: bool
    """Our own status: data goes to available paths, and to others only when there is none."""
    peer_wants: bool
    """Whether the other side calls it available; where data goes is everyone's own choice."""
    is_data: bool
    """Our data goes there."""
    rtt: float | None
    """Of the last PATH_CHALLENGE. Its answer comes back the same way, which an acknowledgement
    need not; None before the first answer."""
    smoothed_rtt: float
    """By acknowledgements."""
    mtu: int
    """Largest UDP payload that is known to pass."""
    ptos: int
    """Probe timeouts in a row that were not answered."""
    silent_for: float
    """Since something came in on it, or since it was opened."""
    bytes_sent: int
    bytes_received: int


@dataclass
class PathsChanged(QuicEvent):
    """Something of `Engine.paths` has changed that matters for the choice of a path: a path came,
    was validated, measured or abandoned, stopped or began to answer, or data moved."""


@dataclass
class PeerMoved(QuicEvent):
    """The peer tells of an address that it has not told of before: its network may be another."""


@dataclass
class PathOpened(QuicEvent):
    """The peer has opened a path."""

    path_id: int
    address: Hashable


@dataclass
class PathValidated(QuicEvent):
    """The peer has answered on the path; `rtt` is the round trip in seconds, None when another
    path had proved the address before."""

    path_id: int
    address: Hashable
    rtt: float | None


@dataclass
class PathAbandoned(QuicEvent):
    """Nothing is sent on the path any more."""

    path_id: int
    address: Hashable
    code: int
    by_peer: bool


@dataclass
class DataPathChanged(QuicEvent):
    """Our data goes on this path from now on."""

    path_id: int
    address: Hashable
