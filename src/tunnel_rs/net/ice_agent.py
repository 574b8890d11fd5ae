"""ICE for one session: find candidates, meet the peer, and carry its trains as a face.

`gather`, tell the peer `parameters`, `connect` with the peer's. From then on `face` reaches the
peer. `close` at the end.
"""

import asyncio
import secrets
import string
from collections.abc import Callable, Sequence

from aioice import stun
from aioice.candidate import Candidate, candidate_priority

from tunnel_rs.errors import LocalError, UnreachableError
from tunnel_rs.net.ice_connection import IceConnection, IceProtocol, PathKey
from tunnel_rs.net.ice_face import IceFace
from tunnel_rs.net.ice_gather import (
    IceServers,
    Mapping,
    allocate_relay,
    ask_stun,
    find_mappings,
    host_addresses,
    host_candidate,
    reflexive_candidate,
    resolve_servers,
)
from tunnel_rs.net.ice_socket import IceSocket
from tunnel_rs.net.resolver import Resolve
from tunnel_rs.net.tasks import TaskScope
from tunnel_rs.net.udp import UdpSocket
from tunnel_rs.proto.ice_candidates import IceCandidate, guesses, parse_candidates
from tunnel_rs.proto.ice_messages import IceParameters
from tunnel_rs.proto.ice_servers import TurnServer
from tunnel_rs.reports import Notice, Reporter
from tunnel_rs.values import SocketAddr

USED_CANDIDATES = 40
"""Candidates of the peer that are tried, the best ones."""

MAPPING_REFRESH = 10.0
"""Seconds between packets that keep a NAT's mapping while the peer's message is awaited; NATs
forget after 30 s and more."""

CLOSE_PATIENCE = 1.0
"""Seconds a TURN server has to confirm that our allocation may go."""

_ALPHABET = string.ascii_letters + string.digits
_UFRAG_LENGTH, _PASSWORD_LENGTH = 16, 22


def _random_text(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


class IceAgent:
    """One session's ICE."""

    def __init__(self, *, controlling: bool, report: Reporter) -> None:
        self._connection = IceConnection(
            controlling=controlling,
            username=_random_text(_UFRAG_LENGTH),
            password=_random_text(_PASSWORD_LENGTH),
        )
        self._report = report
        self.face = IceFace(self._connection)
        self._tasks = TaskScope("ice")
        self._remote: tuple[IceCandidate, ...] = ()

    # Setting up

    async def gather(
        self, servers: IceServers, resolve: Resolve, hosts: Sequence[str] | None = None
    ) -> None:
        """Find our candidates. Raises LocalError when there is none at all; servers that do not
        answer are reported."""
        for rank, ip in enumerate(host_addresses() if hosts is None else hosts):
            self._add_host(ip, rank)
        stun_servers = await resolve_servers(servers.stun, resolve, self._report)
        async with TaskScope("gather") as scope:
            scope.spawn(self._find_mappings(stun_servers), "stun")
            for server in servers.turn:
                scope.spawn(self._allocate(server, resolve), "turn")
            await scope.join()
        if not self._connection.local_candidates:
            raise LocalError("no ICE candidate was found: this machine has no usable network")

    def _add_host(self, ip: str, rank: int) -> None:
        try:
            socket = UdpSocket.bind(SocketAddr(ip, 0))
        except (LocalError, OSError) as error:
            self._report(Notice("debug", f"ICE: {error}"))
            return
        ice_socket = IceSocket(
            socket, self._connection, on_batch=self.face.end_batch, on_writable=self.face.writable
        )
        candidate = host_candidate(socket.address, rank)
        ice_socket.protocol.local_candidate = candidate
        self.face.sockets[ice_socket.protocol.id] = ice_socket
        self._connection.adopt(ice_socket.protocol, candidate)

    async def _find_mappings(self, servers: Sequence[SocketAddr]) -> None:
        protocols = [socket.protocol for socket in self.face.sockets.values()]
        mappings = await find_mappings(protocols, servers)
        if servers and not mappings:
            asked = ", ".join(map(str, servers))
            self._report(
                Notice(
                    "warning",
                    f"no STUN server answered ({asked}): only peers on this network, or with a "
                    "public address, can be reached; name others with --stun-server",
                )
            )
        for mapping in mappings:
            base = mapping.protocol.local_candidate
            if (mapping.address.ip, mapping.address.port) != (base.host, base.port):
                self._connection.announce(reflexive_candidate(base, mapping.address))
        if mappings:
            self._tasks.spawn(self._keep(mappings), "mappings")

    async def _keep(self, mappings: Sequence[Mapping]) -> None:
        while True:
            await asyncio.sleep(MAPPING_REFRESH)
            for mapping in mappings:
                try:
                    await ask_stun(mapping.protocol, mapping.server, retransmissions=0)
                except (stun.TransactionError, ValueError):
                    pass

    async def _allocate(self, server: TurnServer, resolve: Resolve) -> None:
        try:
            protocol = await allocate_relay(self._connection, server, resolve)
        except LocalError as error:
            self._report(Notice("warning", f"no relay: {error}"))
            return
        self.face.relays[protocol.id] = protocol

    @property
    def parameters(self) -> IceParameters:
        """What the peer has to be told."""
        return IceParameters(
            self._connection.local_username,
            self._connection.local_password,
            tuple(f"candidate:{c.to_sdp()}" for c in self._connection.local_candidates),
        )

    async def connect(self, remote: IceParameters, *, timeout: float) -> PathKey:
        """Meet the peer. Raises UnreachableError that tells what was tried."""
        self._remote = parse_candidates(remote.candidates, remote.ufrag, USED_CANDIDATES)
        self._connection.remote_username = remote.ufrag
        self._connection.remote_password = remote.password
        for candidate in self._remote:
            await self._connection.add_remote_candidate(_to_aioice(candidate))
        for address in guesses(self._remote)[:USED_CANDIDATES]:
            await self._connection.add_remote_candidate(_guess(address))
        try:
            async with asyncio.timeout(timeout):
                await self._connection.connect()
        except (TimeoutError, ConnectionError):
            raise UnreachableError(self._why_not(timeout)) from None
        await self._tasks.aclose()
        path = self.path
        assert path is not None
        return path

    def _why_not(self, timeout: float) -> str:
        if not self._remote:
            return "the other side announced no address that can be used"
        local = {c.type for c in self._connection.local_candidates}
        text = f"no connection to the other side in {timeout:g} s"
        if "srflx" not in local and "relay" not in local:
            return f"{text}: no STUN or TURN server was of help, and no direct address answered"
        if "relay" not in local:
            return (
                f"{text}: the NATs between may be of kinds that do not go together; a TURN server "
                "on either side helps (--turn-server)"
            )
        return f"{text}: neither direct nor through the relay"

    async def close(self) -> None:
        """Close all sockets and give up relay addresses. Idempotent; takes `CLOSE_PATIENCE` at
        most."""
        await self._tasks.aclose()
        try:
            async with asyncio.timeout(CLOSE_PATIENCE):
                await self._connection.close()
        except TimeoutError:
            for protocol in (
                *self.face.relays.values(),
                *(s.protocol for s in self.face.sockets.values()),
            ):
                protocol.transport.close()
            for relay in self.face.relays.values():
                _abandon(relay)

    # What is known once connected

    @property
    def path(self) -> PathKey | None:
        """The path ICE has chosen."""
        pair = self._connection.nominated
        return None if pair is None else (pair.protocol.id, *pair.remote_addr)

    def on_consent_lost(self, callback: Callable[[], None]) -> None:
        """Call `callback` when the peer has shown no sign of itself for 30 s (RFC 7675)."""
        self._connection.on_consent_lost = callback


def _to_aioice(candidate: IceCandidate) -> Candidate:
    return Candidate(
        candidate.foundation,
        1,
        "udp",
        candidate.priority,
        candidate.address.ip,
        candidate.address.port,
        candidate.type,
    )


def _guess(address: SocketAddr) -> Candidate:
    priority = candidate_priority(1, "srflx", 1)
    return Candidate("guess", 1, "udp", priority, address.ip, address.port, "srflx")


def _abandon(relay: IceProtocol) -> None:
    """Stop waiting for a TURN server to confirm the end."""
    task = getattr(relay.transport, "_TurnTransport__close_task", None)
    if task is not None:
        task.cancel()
