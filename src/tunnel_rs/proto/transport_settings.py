"""Settings of the QUIC transport (spec `cli.md`, table `[iroh.transport]`)."""

from dataclasses import dataclass
from enum import StrEnum

MIN_WINDOW = 1024
MAX_WINDOW = 16_777_216
DEFAULT_WINDOW = 8_388_608


class CongestionController(StrEnum):
    """Congestion control algorithms by their configuration names."""

    CUBIC = "cubic"
    NEW_RENO = "newreno"
    BBR = "bbr"


@dataclass(frozen=True, slots=True)
class TransportSettings:
    """How a QUIC connection behaves. Sizes are bytes, times are seconds."""

    congestion_controller: CongestionController = CongestionController.CUBIC
    """Which algorithm limits the sending rate (RFC 9438, RFC 9002, BBR)."""

    receive_window: int = DEFAULT_WINDOW
    """Most bytes of one stream held for a slow reader; costs that much memory per stalled stream.
    A path is filled when it is at least bandwidth x round trip."""

    send_window: int = DEFAULT_WINDOW
    """Most bytes written locally and not yet acknowledged, over all streams of a connection."""

    idle_timeout: float = 300.0
    """A connection on which nothing is heard for this long is given up."""

    keep_alive: float = 15.0
    """A PING is sent after this long without traffic, so that NATs keep the mapping."""

    handshake_timeout: float = 10.0
    """A handshake that has not completed by then is given up."""

    silence_timeout: float | None = None
    """A connection whose peer answers nothing for this long, while we ask, is given up. None:
    only `idle_timeout` ends it."""

    max_streams: int = 256
    """Streams a peer may have open at a time, when it dialled us."""

    fast_path: bool = True
    """Seal and open established stream traffic as trains; off, aioquic does all of it."""

    multipath: bool = True
    """Let a connection have several paths at a time (QUIC multipath), if the peer can too."""

    datagrams: bool = True
    """Carry UDP payloads in DATAGRAM frames (RFC 9221) when the peer takes them."""

    offload: bool = True
    """Let the kernel segment and coalesce datagrams (GSO, GRO) where it can."""
