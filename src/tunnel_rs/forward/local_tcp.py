"""Client side of TCP tunnels: local connections become streams of the uplink."""

import asyncio
import socket
from dataclasses import dataclass

from tunnel_rs.errors import TunnelError
from tunnel_rs.forward.dialogue import Dialogue
from tunnel_rs.forward.sessions import Sessions
from tunnel_rs.forward.settings import ClientSettings, Tunnel
from tunnel_rs.forward.uplink import Uplink
from tunnel_rs.net.resolver import Resolve
from tunnel_rs.net.splice import join_tcp
from tunnel_rs.net.tasks import ScopeFullError, TaskScope
from tunnel_rs.net.tcp import TcpListener, listen, reset
from tunnel_rs.reports import Listening, Reporter, SessionRefused
from tunnel_rs.values import SourceUrl


@dataclass(frozen=True, slots=True)
class ClientParts:
    """What all local listeners of one client share."""

    settings: ClientSettings
    uplink: Uplink
    sessions: Sessions
    tasks: TaskScope
    resolve: Resolve
    report: Reporter

    def refused(self, source: SourceUrl, error: Exception) -> None:
        self.report(SessionRefused(str(source), str(error)))


async def listen_tcp(parts: ClientParts, tunnel: Tunnel) -> TcpListener:
    """Forward every connection to `tunnel.target`. Raises LocalError."""

    def accepted(sock: socket.socket) -> None:
        try:
            parts.tasks.spawn(_forward(parts, sock, tunnel.source), str(tunnel.source))
        except ScopeFullError:
            reset(sock)

    listener = await listen(tunnel.target, accepted, parts.resolve)
    for address in listener.addresses:
        parts.report(Listening(address, tunnel.source))
    return listener


async def _forward(parts: ClientParts, sock: socket.socket, source: SourceUrl) -> None:
    """One local connection. It is not read before the target is connected, so that nothing it
    sends is lost, and it is reset when there will be none."""
    try:
        dialogue = await parts.uplink.request(source)
    except TunnelError as error:
        reset(sock)
        parts.refused(source, error)
        return
    except BaseException:
        reset(sock)
        raise
    await join_source(parts, sock, dialogue, source)


async def join_source(
    parts: ClientParts, sock: socket.socket, dialogue: Dialogue, source: SourceUrl
) -> None:
    """Let bytes flow between a local connection and an accepted stream. Owns both."""
    session = parts.sessions.take(source)
    if session is None:
        reset(sock)
        dialogue.abandon()
        return
    try:
        with session:
            session.opened()
            splice = await join_tcp(sock, dialogue.stream, dialogue.hand_over, session.ended)
            session.carried_by(splice)
    except (OSError, asyncio.CancelledError) as error:
        dialogue.abandon()
        if isinstance(error, asyncio.CancelledError):
            raise
