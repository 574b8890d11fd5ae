"""`tunnel-rs` without LAN discovery: that finds the server of this machine around `wire.py`."""

from tunnel_rs.cli.main import main
from tunnel_rs.iroh.endpoint import Endpoint


async def _open_lan(self: Endpoint, accept: bool) -> None:
    """In place of what opens it."""


if __name__ == "__main__":
    Endpoint._open_lan = _open_lan  # type: ignore[method-assign]
    main()
