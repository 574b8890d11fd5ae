"""How a running program is watched and steered."""

from dataclasses import dataclass
from pathlib import Path

from tunnel_rs.config.operation_options import AUDIT_LOG, CONTROL_SOCKET, METRICS_BIND, NONE
from tunnel_rs.config.sources import Values
from tunnel_rs.values import SocketAddr


@dataclass(frozen=True, slots=True)
class OperationSettings:
    """How a running program is watched and steered."""

    control: bool = True
    """Whether there is a control socket."""

    control_socket: Path | None = None
    """None: in the runtime directory."""

    metrics_bind: SocketAddr | None = None
    audit_log: Path | None = None


def operation_settings(values: Values) -> OperationSettings:
    """Take these options together."""
    socket = values.get(CONTROL_SOCKET)
    return OperationSettings(
        control=socket != NONE,
        control_socket=None if socket == NONE else socket,
        metrics_bind=values.get(METRICS_BIND),
        audit_log=values.get(AUDIT_LOG),
    )
