"""The forwarding client: local listeners, and one link to the server behind them."""

import asyncio
import random
import socket
from collections.abc import Callable
from itertools import count

from tunnel_rs.errors import LocalError, TunnelError, UnreachableError, UsageError
from tunnel_rs.forward.dialogue import DONE
from tunnel_rs.forward.local_tcp import ClientParts, join_source, listen_tcp
from tunnel_rs.forward.local_udp import UdpListener, listen_udp
from tunnel_rs.forward.sessions import Sessions
from tunnel_rs.forward.settings import ClientSettings, Tunnel
from tunnel_rs.forward.socks import listen_socks
from tunnel_rs.forward.uplink import Connect, Settle, Uplink
from tunnel_rs.net.resolver import Resolve, SystemResolver
from tunnel_rs.net.splice import SpliceEnd
from tunnel_rs.net.stdio import join_stdio
from tunnel_rs.net.tasks import TaskScope
from tunnel_rs.net.tcp import TcpListener
from tunnel_rs.reports import Notice, PeerStatus, Penalties, Reporter, TunnelStatus, silent
from tunnel_rs.values import Protocol, SourceUrl

DRAIN_TIMEOUT = 5.0

MAX_SESSIONS = 65_536
"""Forwarded connections and flows at a time; a process runs out of descriptors before."""


MAX_TUNNELS = 1024
"""Listeners at a time."""

Listener = TcpListener | UdpListener


class ForwardClient:
    """Forwards what `settings` say until it is closed, or for good reason cannot go on."""

    penalties = Penalties()
    """Of those who guess tokens: nobody does that here."""

    packets = None
    """None are carried here."""

    def __init__(
        self,
        settings: ClientSettings,
        connect: Connect,
        report: Reporter = silent,
        *,
        resolve: Resolve | None = None,
        random: Callable[[], float] = random.random,
        stdio: tuple[int, int] = (0, 1),
        settle: Settle | None = None,
    ) -> None:
        self.sessions = Sessions(report, limit=MAX_SESSIONS)
        self._settings = settings
        self._report = report
        self._resolve = resolve or SystemResolver()
        self._uplink = Uplink(settings, connect, report, random=random, settle=settle)
        self._stdio = stdio
        self._parts: ClientParts | None = None
        self._listeners: dict[int, tuple[SourceUrl | None, Listener]] = {}
        self._numbers = count(1)
        self._drained = asyncio.Event()

    async def run(self) -> None:
        """Listen, keep the link up, forward. Returns after `close`, or when stdin and stdout are
        done. Raises what ends it otherwise: LocalError (a listener), AuthRefusedError,
        WrongPeerError, without reconnecting any loss of the link, and in stdio mode TargetError
        or UnreachableError. When it ends nothing is left open or running."""
        if self._settings.stdio and self._settings.stdio.protocol is not Protocol.TCP:
            raise UsageError(f"stdin and stdout can carry tcp:// only, not {self._settings.stdio}")
        try:
            async with TaskScope("client", on_failure=self._task_failed) as tasks:
                self._parts = ClientParts(
                    self._settings, self._uplink, self.sessions, tasks, self._resolve, self._report
                )
                await self._open_listeners(self._parts)
                await self._first_to_end(tasks)
        finally:
            self._close_listeners()
            self.sessions.abort_all("the client is shutting down")
            if self._uplink.link is not None:
                self._uplink.link.close(DONE, "done")

    async def join(self, sock: socket.socket, source: SourceUrl) -> None:
        """Forward a connected stream socket, which is ours from now on, to a TCP `source`. Returns
        once bytes flow. Raises TargetError when the server declines, and UnreachableError."""
        parts = self._parts
        try:
            if parts is None or self._drained.is_set():
                raise UnreachableError("this client is not running")
            dialogue = await self._uplink.request(source)
        except BaseException:
            sock.close()
            raise
        await join_source(parts, sock, dialogue, source)

    def retry_now(self) -> None:
        """Something has changed: while there is no link, dial without waiting longer."""
        self._uplink.retry_now()

    async def close(self, timeout: float = DRAIN_TIMEOUT) -> None:
        """Stop listening, let sessions end for at most `timeout` seconds, then let `run` return,
        which closes the link with code 0 `done`."""
        self._close_listeners()
        try:
            async with asyncio.timeout(timeout):
                await self.sessions.wait_empty()
                if self._uplink.link is not None:
                    await self._uplink.link.drain()
        except TimeoutError:
            self._report(Notice("info", f"{len(self.sessions)} session(s) cut off"))
        self._drained.set()

    @property
    def tunnels(self) -> tuple[TunnelStatus, ...]:
        """The listeners that are open, with the numbers to remove them by."""
        return tuple(
            TunnelStatus(number, source, listener.addresses)
            for number, (source, listener) in self._listeners.items()
        )

    @property
    def peers(self) -> tuple[PeerStatus, ...]:
        """The server, while there is a link to it."""
        link = self._uplink.link
        if link is None:
            return ()
        sessions = tuple(session.status for session in self.sessions)
        seconds, moved = round(self._uplink.up_for, 3), self.sessions.totals
        return (PeerStatus(link.peer, "", "", seconds, link.paths, *moved, sessions),)

    @property
    def moved(self) -> dict[int, tuple[int, int]]:
        """Bytes sent and received, by the number of the link there is."""
        return {} if self._uplink.link is None else {0: self.sessions.totals}

    async def ping(self) -> dict[str, float]:
        """Seconds to the server and back, by its id. Raises LinkClosedError."""
        link = self._uplink.link
        return {} if link is None else {str(link.peer): await link.ping()}

    async def add_tunnel(self, tunnel: Tunnel) -> TunnelStatus:
        """Forward one more. Raises LocalError."""
        if self._parts is None or self._drained.is_set():
            raise LocalError("this client is not running")
        if self._settings.stdio is not None:
            raise LocalError("this client forwards stdin and stdout, and nothing beside")
        if len(self._listeners) >= MAX_TUNNELS:
            raise LocalError(f"this client has {MAX_TUNNELS} tunnels, which is the limit")
        listening = listen_tcp if tunnel.source.protocol is Protocol.TCP else listen_udp
        number = self._keep(tunnel.source, await listening(self._parts, tunnel))
        return next(status for status in self.tunnels if status.tunnel == number)

    def remove_tunnel(self, number: int) -> bool:
        """Close a listener; False when there is none with this number. TCP connections it has
        taken go on, UDP flows end."""
        if number not in self._listeners:
            return False
        _, listener = self._listeners.pop(number)
        listener.close()
        return True

    async def _open_listeners(self, parts: ClientParts) -> None:
        for tunnel in self._settings.tunnels:
            listening = listen_tcp if tunnel.source.protocol is Protocol.TCP else listen_udp
            self._keep(tunnel.source, await listening(parts, tunnel))
        if self._settings.socks5 is not None:
            self._keep(None, await listen_socks(parts, self._settings.socks5))

    def _keep(self, source: SourceUrl | None, listener: Listener) -> int:
        number = next(self._numbers)
        self._listeners[number] = source, listener
        return number

    def _close_listeners(self) -> None:
        for number in list(self._listeners):
            self.remove_tunnel(number)

    async def _first_to_end(self, tasks: TaskScope) -> None:
        ends = [tasks.spawn(self._uplink.run(), "uplink"), tasks.spawn(self._drained.wait(), "end")]
        if self._settings.stdio is not None:
            ends.append(tasks.spawn(self._run_stdio(self._settings.stdio), "stdio"))
        done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    async def _run_stdio(self, source: SourceUrl) -> None:
        """Forward stdin and stdout to their end."""
        ended: asyncio.Future[SpliceEnd] = asyncio.get_running_loop().create_future()
        dialogue = await self._uplink.request(source)
        session = self.sessions.take(source)
        if session is None:
            raise UnreachableError(f"{source}: too many sessions")
        end_session = session.ended

        def on_end(end: SpliceEnd) -> None:
            end_session(end)
            if not ended.done():
                ended.set_result(end)

        stdin, stdout = self._stdio
        with session:
            session.opened()
            splice = await join_stdio(
                dialogue.stream, dialogue.hand_over, on_end, stdin=stdin, stdout=stdout
            )
            session.carried_by(splice)
        end = await ended
        if end.reason:
            raise UnreachableError(f"{source}: {end.reason}")

    def _task_failed(self, name: str, error: Exception) -> None:
        # A TunnelError is an expected end that `run` raises; anything else is a fault of ours.
        if not isinstance(error, TunnelError):
            self._report(Notice("warning", f"internal error in {name}: {error!r}"))
