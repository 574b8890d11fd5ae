"""Peer-to-peer TCP and UDP port forwarding, compatible with iroh 1.x and the Rust tunnel-rs.

`connect` and `serve` do from a program what the commands do; see `docs/API.md`.
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from tunnel_rs.api import Client as Client
    from tunnel_rs.api import ClientConfig as ClientConfig
    from tunnel_rs.api import Server as Server
    from tunnel_rs.api import ServerConfig as ServerConfig
    from tunnel_rs.api import TunnelError as TunnelError
    from tunnel_rs.api import client_config as client_config
    from tunnel_rs.api import connect as connect
    from tunnel_rs.api import serve as serve
    from tunnel_rs.api import server_config as server_config

_LIBRARY = (
    "Client",
    "ClientConfig",
    "Server",
    "ServerConfig",
    "TunnelError",
    "client_config",
    "connect",
    "serve",
    "server_config",
)


def __getattr__(name: str) -> object:
    # Late: the commands import this package too, and do not want the QUIC stack for `--help`.
    if name in _LIBRARY:
        from tunnel_rs import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
