"""Options of how a running program is watched and steered."""

from pathlib import Path

from tunnel_rs.config import kinds
from tunnel_rs.config.option import BOTH, SERVER, Option
from tunnel_rs.values import SocketAddr

NONE = Path("none")
"""What turns the control socket off."""

CONTROL_SOCKET: Option[Path | None] = Option(
    "control_socket",
    kinds.FILE,
    None,
    BOTH,
    "Where `tunnel-rs status` and its like reach this program; `none`: nowhere. Default: a socket "
    "of its own in the runtime directory, where they look.",
    key="iroh.control_socket",
    flags=("--control-socket",),
    metavar="FILE",
    variable="TUNNEL_RS_CONTROL_SOCKET",
)
METRICS_BIND: Option[SocketAddr | None] = Option(
    "metrics_bind",
    kinds.BIND_ADDRESS,
    None,
    BOTH,
    "Serve /metrics (Prometheus), /healthz and /readyz over HTTP here; nobody is asked who they "
    "are, so choose loopback unless others may know. Without it nothing is served.",
    key="iroh.metrics_bind",
    flags=("--metrics-bind",),
    metavar="IP:PORT",
)
AUDIT_LOG: Option[Path | None] = Option(
    "audit_log",
    kinds.FILE,
    None,
    SERVER,
    "Append to this file, as JSON lines, who came in and reached what, when, and how many bytes "
    "went; opened anew on SIGHUP.",
    key="iroh.audit_log",
    flags=("--audit-log",),
    metavar="FILE",
)
OPERATIONS: tuple[Option[object], ...] = (CONTROL_SOCKET, METRICS_BIND, AUDIT_LOG)
