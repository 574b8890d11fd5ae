"""Our end in iroh mode: one key, its sockets and relays, peers dialled and accepted by id."""

import asyncio
import os
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack

from tunnel_rs.errors import LinkClosedError, LocalError, UnreachableError
from tunnel_rs.iroh.announce import Announcement
from tunnel_rs.iroh.candidates import Candidates
from tunnel_rs.iroh.dial import MAX_CANDIDATES, Dialler, dialling
from tunnel_rs.iroh.lan import LanDiscovery
from tunnel_rs.iroh.pkarr_client import PkarrClient
from tunnel_rs.iroh.relays import EndpointRelays
from tunnel_rs.iroh.resolve import Resolver, make_resolver
from tunnel_rs.iroh.roaming import Roaming
from tunnel_rs.iroh.settings import EndpointSettings
from tunnel_rs.iroh.ways import Discovery, GivenAddresses, Lan, Relays, Way
from tunnel_rs.net.interfaces import Interface, local_interfaces
from tunnel_rs.net.network_watch import NetworkWatch
from tunnel_rs.net.quic import ALPN, QuicEndpoint, UdpFace
from tunnel_rs.net.quic_connection import QuicConnection
from tunnel_rs.net.tasks import TaskScope
from tunnel_rs.net.udp import UdpSocket
from tunnel_rs.proto.engine import Address
from tunnel_rs.proto.raw_keys import Identity
from tunnel_rs.reports import Notice, Report, Reporter, Trying
from tunnel_rs.values import EndpointId, Secret, SocketAddr

SILENCE = 10.0
"""Seconds without any answer after which a client dials anew."""

ONLINE_TIMEOUT = 10.0
"""Seconds a server waits for its first relay before it goes on without."""

HEAD_START = 1.5
"""Seconds that discovery has before a client asks for a server at all public relays."""


class Endpoint:
    """Make one with `bind`; then `connect`, or `accept` in a loop; `close` at the end."""

    def __init__(self, settings: EndpointSettings, quic: QuicEndpoint, report: Reporter) -> None:
        self._settings = settings
        self._quic = quic
        self._report = report
        self._sockets: list[UdpSocket] = []
        self._lan: LanDiscovery | None = None
        self._relays: EndpointRelays | None = None
        self._announcement: Announcement | None = None
        self._resolver: Resolver | None = None
        self._tasks = TaskScope("discovery")
        self._candidates: Candidates | None = None
        self._watch = NetworkWatch(self._network_changed, scan=self._interfaces)
        self._roaming = Roaming(
            quic,
            dialling(settings.transport, SILENCE),
            report,
            self._tasks,
            direct_only=settings.direct_only,
            on_found_again=lambda: self.on_change(),
            on_direct_failed=self._direct_failed,
            on_path=self._ask_outside,
        )
        self._open = AsyncExitStack()
        self._closed = False
        self._tried: set[str] = set()
        """Ways that people know of, since there was no connection."""
        self.on_change: Callable[[], None] = lambda: None
        """Called when a relay lets us in or the network has changed: what could not be reached may
        be reachable now."""

    @classmethod
    async def bind(
        cls, settings: EndpointSettings, *, accept: bool, report: Reporter, alpn: str = ALPN
    ) -> "Endpoint":
        """Open the sockets and, with `accept`, take connections and announce ourselves. Peers
        have to speak `alpn`. Raises LocalError, and ConfigError for a CA file that cannot be
        used."""
        seed = settings.secret_key or Secret(os.urandom(32))
        quic = QuicEndpoint(
            Identity(seed),
            settings.transport,
            accept=accept,
            alpn=alpn,
            punches=not settings.relay_only,
        )
        endpoint = cls(settings, quic, report)
        try:
            await endpoint._start(seed, accept)
        except BaseException:
            await endpoint.close()
            raise
        return endpoint

    async def _start(self, seed: Secret[bytes], accept: bool) -> None:
        """What is opened first is closed last."""
        self._open_discovery(seed, accept)
        self._open.push_async_callback(self._tasks.aclose)
        if self._settings.relays:
            self._relays = EndpointRelays(
                self._quic,
                self._settings,
                self._report,
                at_home=accept,
                on_home=lambda _: self._announce(),
                on_up=self._relay_up,
            )
            self._open.push_async_callback(self._relays.close)
        if not self._settings.relay_only:
            self._open_sockets(mirror=accept)
            await self._open_lan(accept)
            if accept and self._candidates is not None:
                self._candidates.ask(())
        if self._relays is not None:
            self._relays.start()
        self._announce()
        self._watch.start()
        self._open.callback(self._watch.close)

    def _open_discovery(self, seed: Secret[bytes], accept: bool) -> None:
        discovery = self._settings.discovery
        if accept and discovery.publish_url is not None:
            client = self._pkarr_client(discovery.publish_url)
            self._open.push_async_callback(client.close)
            self._announcement = Announcement(client, seed, discovery, self._report)
            self._tasks.spawn(self._announcement.run(lambda: self.addresses), "publish")
        if not accept:
            resolving = None
            if discovery.resolve_url is not None:
                resolving = self._pkarr_client(discovery.resolve_url)
                self._open.push_async_callback(resolving.close)
            self._resolver = make_resolver(discovery, resolving, self._settings.mark)

    def _pkarr_client(self, url: str) -> PkarrClient:
        settings = self._settings
        return PkarrClient(url, ca_file=settings.discovery.ca_file, mark=settings.mark)

    def _open_sockets(self, *, mirror: bool) -> None:
        self._sockets = _bind_sockets(self._settings, mirror=mirror)
        for socket in self._sockets:
            self._quic.add_face(UdpFace(socket))
        self._candidates = Candidates(
            self._sockets,
            self._quic,
            self._settings,
            self._report,
            self._candidates_changed,
            scan=self._interfaces,
        )
        self._open.push_async_callback(self._candidates.close)
        self._candidates.start()

    def _candidates_changed(self) -> None:
        if self._candidates is not None:
            self._quic.set_candidates(self._candidates.to_punch)
            self._announce()

    def _direct_failed(self) -> None:
        if self._candidates is not None:
            self._candidates.check()

    def _relay_up(self) -> None:
        self._ask_outside()
        self.on_change()

    def _ask_outside(self) -> None:
        """Who reaches its server directly has a relay as a spare, and no need of more addresses."""
        if self._candidates is None or self._relays is None or self._roaming.is_direct:
            return
        if self._relays.connected:
            self._candidates.ask(self._relays.connected)

    def _network_changed(self) -> None:
        self._report(Notice("debug", "the network has changed, or this machine has slept"))
        if self._candidates is not None:
            self._candidates.network_changed()
        if self._relays is not None:
            self._relays.network_changed()
        self._roaming.network_changed()
        self.on_change()

    async def _open_lan(self, accept: bool) -> None:
        if self._settings.lan_discovery:
            self._lan = LanDiscovery(self._report, scan=self._interfaces)
            self._open.push_async_callback(self._lan.close)
            await self._lan.start()
            if accept:
                self._lan.announce(self.endpoint_id, self._bound)

    def _announce(self) -> None:
        if self._announcement is not None:
            self._announcement.update(self.home_relay, self.addresses)

    @property
    def endpoint_id(self) -> EndpointId:
        return self._quic.identity.endpoint_id

    @property
    def addresses(self) -> tuple[SocketAddr, ...]:
        """Where we can be reached directly, loopback last."""
        return self._candidates.addresses if self._candidates is not None else ()

    def _interfaces(self) -> tuple[Interface, ...]:
        own = self._settings.own_device
        return tuple(each for each in local_interfaces() if each.name != own)

    @property
    def home_relay(self) -> str | None:
        """URL of the relay where we can be reached now."""
        return self._relays.home if self._relays is not None else None

    @property
    def ways(self) -> tuple[str, ...]:
        """For people: by which ways a client can find us."""
        relay = (f"relay {self.home_relay}",) if self.home_relay else ()
        return (*relay, *(("LAN",) if self._lan is not None else ()))

    def _bound(self) -> list[SocketAddr]:
        return [socket.address for socket in self._sockets]

    async def online(self, *, timeout: float = ONLINE_TIMEOUT) -> None:
        """Wait until clients can reach us over a relay, if there is to be one. For an endpoint
        that accepts; one that only dials is never at home on a relay.

        When that takes more than `timeout` seconds: raises UnreachableError if there is no other
        way to us, else tells so and returns; the relays are tried on.
        """
        if self._relays is None:
            return
        try:
            async with asyncio.timeout(timeout):
                await self._relays.wait_online()
        except TimeoutError:
            problem = f"no relay was reached in {timeout:g} s ({self._relays.problems})"
            if self._settings.relay_only:
                raise UnreachableError(f"{problem}; check the network and --relay-url") from None
            text = f"{problem}; only clients that reach this machine directly find it until then"
            self._report(Notice("warning", text))

    async def connect(self, peer: EndpointId, *, timeout: float) -> QuicConnection:
        """Dial `peer` on all ways. Raises PeerNotFoundError, UnreachableError, WrongPeerError;
        LinkClosedError once closed."""
        if self._closed:
            raise LinkClosedError(0, "the endpoint was closed")
        known: Iterable[Address] = ()
        connection = self._roaming.take(peer)
        if connection is None:
            settings = dialling(self._settings.transport, SILENCE)
            ways = self._ways_to_peers()
            dialler = Dialler(self._quic, peer, ways, settings, self._tell)
            connection = await dialler.run(timeout)
            known = dialler.names
            self._tried.clear()
        connection.engine.set_given(self._settings.peer_addrs)
        self._roaming.dialled(connection, known, self._ways_to_peers, self._ways_to_relays())
        return connection

    def _tell(self, report: Report) -> None:
        """A way that is tried again and again is news once."""
        if isinstance(report, Trying):
            if report.way in self._tried:
                return
            if len(self._tried) < MAX_CANDIDATES:
                self._tried.add(report.way)
        self._report(report)

    async def settle(self, *, timeout: float) -> None:
        """To be awaited once the server has let us in, before anything is forwarded: with
        `direct_only` it takes until the connection dialled last is direct. Raises UnreachableError
        when that takes more than `timeout` seconds, LinkClosedError."""
        if self._settings.direct_only:
            await self._roaming.until_direct(timeout=timeout)

    def _ways_to_peers(self) -> list[Way]:
        settings, ways = self._settings, list[Way]()
        if settings.peer_addrs and not settings.relay_only:
            ways.append(GivenAddresses(settings.peer_addrs))
        if self._lan is not None:
            ways.append(Lan(self._lan))
        ways += self._discovery()
        if settings.relays:
            waits = settings.public_relays and self._resolver is not None
            ways.append(Relays(self._relay_urls, HEAD_START if waits else 0.0))
        return ways

    def _ways_to_relays(self) -> list[Way]:
        """Which relays a server is at, by its own word or the user's. Public ones are not asked for
        it one by one, where a relay is only a spare."""
        if self._relays is None:
            return []
        public = self._settings.public_relays
        return [*self._discovery(), *([] if public else [Relays(self._relay_urls)])]

    def _discovery(self) -> list[Way]:
        if self._resolver is None:
            return []
        asked, relays = self._settings.discovery.asked, self._relays is not None
        return [Discovery(asked, self._resolver, self._tasks, relays=relays)]

    @property
    def _relay_urls(self) -> list[str]:
        return [relay.text for relay in self._settings.relays]

    async def accept(self) -> QuicConnection:
        """Next client whose handshake is complete; it is not authenticated yet. Raises
        LinkClosedError once closed."""
        connection = await self._quic.accept()
        self._roaming.accepted(connection)
        return connection

    async def close(self, code: int = 0, reason: str = "done") -> None:
        """Close all connections with `code` and `reason`, the sockets and relays. Idempotent."""
        self._closed = True
        self._roaming.close()
        self._quic.close(code, reason)
        await self._open.aclose()


def _bind_sockets(settings: EndpointSettings, *, mirror: bool) -> list[UdpSocket]:
    """One socket for the address to bind; by default one for each address family there is."""
    offload, mark = settings.transport.offload, settings.mark
    if settings.bind is not None:
        return [UdpSocket.bind(settings.bind, mirror=mirror, offload=offload, mark=mark)]
    sockets: list[UdpSocket] = []
    for ip in ("0.0.0.0", "::"):
        address = SocketAddr(ip, 0)
        try:
            sockets.append(UdpSocket.bind(address, mirror=mirror, offload=offload, mark=mark))
        except LocalError as exc:
            error = exc
    if not sockets:
        raise error
    return sockets
