"""Options of the QUIC transport: the table `[iroh.transport]` of a file."""

from tunnel_rs.config import kinds
from tunnel_rs.config.option import BOTH, Option
from tunnel_rs.proto.transport_settings import (
    DEFAULT_WINDOW,
    MAX_WINDOW,
    MIN_WINDOW,
    CongestionController,
)

CONGESTION: Option[CongestionController] = Option(
    "congestion_controller",
    kinds.CONGESTION_CONTROLLER,
    CongestionController.CUBIC,
    BOTH,
    "What limits the sending rate: cubic, or newreno (also written new_reno).",
    key="iroh.transport.congestion_controller",
)
RECEIVE_WINDOW: Option[int] = Option(
    "receive_window",
    kinds.integer(MIN_WINDOW, MAX_WINDOW, "bytes"),
    DEFAULT_WINDOW,
    BOTH,
    "Most bytes of a stream held for a slow reader; costs that much memory per stalled stream.",
    key="iroh.transport.receive_window",
)
SEND_WINDOW: Option[int | None] = Option(
    "send_window",
    kinds.integer(MIN_WINDOW, MAX_WINDOW, "bytes"),
    None,
    BOTH,
    "Most bytes sent and not yet acknowledged on a connection; default: the receive window.",
    key="iroh.transport.send_window",
)
IDLE_TIMEOUT: Option[float] = Option(
    "idle_timeout",
    kinds.seconds(5, 86_400),
    300.0,
    BOTH,
    "Seconds without a sign of the peer after which the connection is given up.",
    key="iroh.transport.idle_timeout",
)
FAST_PATH: Option[bool] = Option(
    "fast_path",
    kinds.SWITCH,
    True,
    BOTH,
    "Handle established stream traffic in trains of packets; with false aioquic does each packet, "
    "several times slower. For comparing and for finding faults.",
    key="iroh.transport.fast_path",
    hidden=True,
)
OFFLOAD: Option[bool] = Option(
    "offload",
    kinds.SWITCH,
    True,
    BOTH,
    "Let the kernel split and join UDP datagrams where it can (GSO and GRO, Linux); with false "
    "each is a system call. For comparing and for drivers that do it wrongly.",
    key="iroh.transport.offload",
    hidden=True,
)
UDP_DATAGRAMS: Option[bool] = Option(
    "udp_datagrams",
    kinds.SWITCH,
    True,
    BOTH,
    "Carry UDP as QUIC datagrams when the other side does too, so that a lost one holds up no "
    "other; with false on a stream, where nothing is lost and much may be late.",
    key="iroh.transport.udp_datagrams",
    hidden=True,
)
MULTIPATH: Option[bool] = Option(
    "multipath",
    kinds.SWITCH,
    True,
    BOTH,
    "Let a connection have several paths at a time (QUIC multipath), and find direct ones through "
    "NATs, when the other side can too; with false it has one, which may move. For finding faults.",
    key="iroh.transport.multipath",
    hidden=True,
)

TRANSPORT: tuple[Option[object], ...] = (
    CONGESTION,
    RECEIVE_WINDOW,
    SEND_WINDOW,
    IDLE_TIMEOUT,
    FAST_PATH,
    OFFLOAD,
)
