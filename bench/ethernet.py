"""`tunnel-rs` that takes loopback for a network: no LAN discovery, which would find the server of
this machine around `wire.py`, and no datagrams larger than Ethernet carries.
"""

from tunnel_rs.cli.main import main
from tunnel_rs.iroh.endpoint import Endpoint
from tunnel_rs.net import quic


async def _open_lan(self: Endpoint, accept: bool) -> None:
    """In place of what opens it."""


def on_ethernet() -> None:
    """All endpoints of this process from now on."""
    Endpoint._open_lan = _open_lan  # type: ignore[method-assign]
    quic.LARGEST_ON_LOOPBACK = quic.LARGEST_ON_IPV4


if __name__ == "__main__":
    on_ethernet()
    main()
