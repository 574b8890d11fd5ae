"""How a UDP socket of ours looks from outside, asked from that socket for as long as it is open.

Relays are asked by QUIC address discovery: such a session stays open, keeps the NAT's mapping
alive and hears of a change. Where no relay answers, STUN servers are asked, now and then.
"""

import asyncio
from collections.abc import Callable, Sequence
from ipaddress import ip_address

from tunnel_rs.errors import ProtocolError, TargetError, UnreachableError
from tunnel_rs.net.qad import AddressDiscovery, QadSession
from tunnel_rs.net.resolver import Resolve
from tunnel_rs.net.stun import StunClient
from tunnel_rs.net.tasks import TaskScope
from tunnel_rs.net.udp import TrainSink, UdpSocket
from tunnel_rs.proto.qad import Trust
from tunnel_rs.values import HostPort, SocketAddr

ANSWER_TIMEOUT = 2.5
"""Seconds for a relay's answer; it takes two round trips."""

STUN_AGAIN = 25.0
"""Seconds between questions to a STUN server; NATs forget silent mappings after 30 and more."""

ASK_SOON, SOON_FOR = 5.0, 150.0
"""Seconds until all are asked again when nobody has answered, during the first while after somebody
did, or after the network changed: UDP may be let through by now."""

ASK_AGAIN = 35.0
"""Seconds until then after that. Longer than NATs remember what was not answered (30): a flow that
began while a router's rules were exchanged has no mapping, and gets none for as long as it lasts.
"""

MAX_SERVERS = 4
"""Asked of each kind."""


class MappedAddress:
    """Stands between a socket and who uses it, and takes the answers out. Create it in a running
    loop, `start` (which starts the socket), `ask`, `close`."""

    def __init__(
        self,
        socket: UdpSocket,
        inner: TrainSink,
        on_change: Callable[[], None],
        *,
        trust: Trust,
        resolve: Resolve,
    ) -> None:
        """`inner` gets what is no answer to us. `on_change` is called when `address` changes."""
        self._socket = socket
        self._on_change = on_change
        self._trust = trust
        self._resolve = resolve
        self._stun = StunClient(socket, inner)
        self._discovery = AddressDiscovery(socket, self._stun)
        self._scope = TaskScope(f"mapped address of {socket.address}")
        self._wake = asyncio.Event()
        self._relays: tuple[HostPort, ...] = ()
        self._servers: tuple[HostPort, ...] = ()
        self._session: QadSession | None = None
        self._asked: HostPort | None = None
        self._loop = asyncio.get_running_loop()
        self._soon_until = self._checked_at = float("-inf")
        self.address: SocketAddr | None = None
        """How the socket looks from outside; None while that is not known."""

    def start(self) -> None:
        """Begin to deliver to `inner`. Nobody is asked before `ask`."""
        self._socket.start(self._discovery)

    def ask(self, relays: Sequence[HostPort], stun_servers: Sequence[HostPort]) -> None:
        """Ask these from now on, the first that answers; at once if they are others than before."""
        relays, servers = tuple(relays[:MAX_SERVERS]), tuple(stun_servers[:MAX_SERVERS])
        if (relays, servers) == (self._relays, self._servers):
            return
        keeps = self._session is not None and self._asked in relays
        self._relays, self._servers = relays, servers
        if not len(self._scope):
            self._soon_until = self._loop.time() + SOON_FOR
            self._scope.spawn(self._keep(), "ask")
        elif not keeps:
            self.network_changed()

    def network_changed(self) -> None:
        """What was answered may no longer be true: ask anew."""
        self._soon_until = self._loop.time() + SOON_FOR
        self._end_session()
        self._wake.set()

    def check(self) -> None:
        """A direct path has failed: UDP may be blocked, or the NAT have forgotten us. Ask anew,
        unless that was done just now."""
        now = self._loop.time()
        if len(self._scope) and now - self._checked_at >= ASK_SOON:
            self._checked_at = now
            self.network_changed()

    async def close(self) -> None:
        """Stop asking; the socket is its owner's. Idempotent."""
        await self._scope.aclose()
        self._end_session()
        self._discovery.close()

    async def _keep(self) -> None:
        while True:
            self._wake.clear()
            await self._ask_relays()
            if self._session is None:
                self._tell(await self._ask_stun_servers())
            try:
                async with asyncio.timeout(self._patience):
                    await self._wake.wait()
            except TimeoutError:
                continue

    @property
    def _patience(self) -> float | None:
        """Seconds until somebody is to be asked again; None while a session is open."""
        if self._session is not None:
            return None
        if self.address is not None:
            return STUN_AGAIN
        return ASK_SOON if self._loop.time() < self._soon_until else ASK_AGAIN

    # Relays

    async def _ask_relays(self) -> None:
        for relay in self._relays:
            where = await self._target(relay)
            if where is None or not await self._open_session(where, relay):
                continue
            return

    async def _open_session(self, where: SocketAddr, relay: HostPort) -> bool:
        name = relay.host.removesuffix(".")
        try:
            session = self._discovery.dial(where, name, self._trust, self._session_changed)
        except RuntimeError:
            return False
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT):
                await session.observed()
        except (TimeoutError, UnreachableError):
            session.close()
            return False
        except BaseException:
            session.close()
            raise
        self._session, self._asked = session, relay
        self._session_changed()
        return True

    def _session_changed(self) -> None:
        if self._session is None:
            return
        if self._session.is_open:
            self._tell(self._session.address)
        else:
            self.network_changed()

    def _end_session(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()

    # STUN servers

    async def _ask_stun_servers(self) -> SocketAddr | None:
        for server in self._servers:
            where = await self._target(server)
            if where is None:
                continue
            try:
                return await self._stun.mapped_address(where)
            except (UnreachableError, ProtocolError):
                continue
        return None

    async def _target(self, server: HostPort) -> SocketAddr | None:
        """The server's first address of the socket's family."""
        try:
            ips = await self._resolve(server.host)
        except TargetError:
            return None
        version = 6 if self._socket.address.is_ipv6 else 4
        found = (ip for ip in ips if ip_address(ip).version == version)
        ip = next(found, None)
        return None if ip is None else SocketAddr(ip, server.port)

    def _tell(self, address: SocketAddr | None) -> None:
        if address != self.address:
            self.address = address
            self._on_change()
