"""From reports to what a service manager is told: ready, and in words how it stands."""

from tunnel_rs.cli import wording
from tunnel_rs.net.service_notices import ServiceNotices
from tunnel_rs.reports import (
    DiscoveryReady,
    RelayReady,
    Report,
    Reporter,
    ServerReady,
    Trying,
    TunnelLost,
    TunnelUp,
    VpnUp,
)

_UP_AND_RUNNING = (ServerReady, RelayReady, DiscoveryReady, Trying, TunnelUp, TunnelLost, VpnUp)
"""Reports after which a program does its work. A client does once its listeners are open and it
begins to look for the server: what starts after it need not wait for a peer that is away."""


def state_notices(notices: ServiceNotices) -> Reporter:
    """A `Reporter` that tells the manager so. To be ready again is only a new status."""

    def tell(report: Report) -> None:
        if isinstance(report, _UP_AND_RUNNING):
            notices.ready(wording.line(report).text)

    return tell
