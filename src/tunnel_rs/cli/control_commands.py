"""What a running server or client does when its control socket asks for it.

Each command takes the fields of a request and gives those of the answer; docs/OPERATIONS.md lists
them. Requests come from the same user, but are checked like everything that comes in.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from tunnel_rs.cli.operations import Command
from tunnel_rs.cli.plain import plain
from tunnel_rs.config.kinds import ListenAddress, pair
from tunnel_rs.errors import LocalError, UnreachableError
from tunnel_rs.forward.settings import Tunnel
from tunnel_rs.net.control_socket import Request
from tunnel_rs.reports import TunnelStatus
from tunnel_rs.values import SourceUrl, quoted

PING_TIMEOUT = 5.0
MIN_PEER = 10
"""Characters of an id that name a client at least: what is shown of it in a log."""

KILLED = "ended by the operator"


class Sessions(Protocol):
    def abort(self, number: int, reason: str) -> bool: ...


class Pinging(Protocol):
    @property
    def sessions(self) -> Sessions: ...

    async def ping(self) -> dict[str, float]: ...


class Server(Pinging, Protocol):
    """`forward.server.ForwardServer`, as far as it is steered."""

    def disconnect(self, peer: str, reason: str) -> int: ...


class Client(Pinging, Protocol):
    """`forward.client.ForwardClient`, as far as it is steered."""

    @property
    def tunnels(self) -> tuple[TunnelStatus, ...]: ...

    async def add_tunnel(self, tunnel: Tunnel) -> TunnelStatus: ...

    def remove_tunnel(self, number: int) -> bool: ...


def server_commands(server: Server, reload: Callable[[], str]) -> Mapping[str, Command]:
    """`reload` reads the settings again, and says in a line what they are. Raises TunnelError."""

    async def kill(request: Request) -> Mapping[str, object]:
        peer = request.get("peer")
        if peer is None:
            return _kill_session(server.sessions, request)
        if not isinstance(peer, str) or len(peer) < MIN_PEER:
            raise LocalError(f"give at least {MIN_PEER} characters of the client's id")
        if not (count := server.disconnect(peer.lower(), KILLED)):
            raise LocalError(f"no client with the id {quoted(peer)}... is connected")
        return {"clients": count}

    async def read_again(_: Request) -> Mapping[str, object]:
        return {"settings": reload()}

    return {"kill": kill, "reload": read_again, "ping": ping_command(server.ping)}


def client_commands(client: Client) -> Mapping[str, Command]:
    async def kill(request: Request) -> Mapping[str, object]:
        return _kill_session(client.sessions, request)

    async def add(request: Request) -> Mapping[str, object]:
        try:
            source = SourceUrl.parse(_text(request, "source"))
            tunnel = pair(source, ListenAddress.parse(_text(request, "target")))
        except ValueError as error:
            raise LocalError(str(error)) from None
        return {"tunnel": plain(await client.add_tunnel(tunnel))}

    async def rm(request: Request) -> Mapping[str, object]:
        wanted = request.get("tunnel")
        for tunnel in client.tunnels:
            if wanted in (tunnel.tunnel, *map(str, tunnel.addresses)):
                client.remove_tunnel(tunnel.tunnel)
                return {"tunnel": plain(tunnel)}
        raise LocalError(f"no tunnel {quoted(str(wanted))} here; `tunnel-rs ls` shows them")

    return {"kill": kill, "ping": ping_command(client.ping), "add": add, "rm": rm}


def _kill_session(sessions: Sessions, request: Request) -> Mapping[str, object]:
    number = request.get("session")
    if not isinstance(number, int) or not sessions.abort(number, KILLED):
        raise LocalError(f"no session {quoted(str(number))} is open; `tunnel-rs ls` shows them")
    return {"session": number}


def ping_command(ping: Callable[[], Awaitable[dict[str, float]]]) -> Command:
    """`ping` gives seconds by the peer's id. Raises TunnelError."""

    async def answer(_: Request) -> Mapping[str, object]:
        try:
            async with asyncio.timeout(PING_TIMEOUT):
                times = await ping()
        except TimeoutError:
            raise UnreachableError(f"no answer in {PING_TIMEOUT:g} s") from None
        if not times:
            raise UnreachableError("there is no connection to ask over")
        return {"seconds": {peer: round(time, 6) for peer, time in times.items()}}

    return answer


def _text(request: Request, field: str) -> str:
    value = request.get(field)
    if not isinstance(value, str):
        raise LocalError(f"{field} is missing, or no text")
    return value
