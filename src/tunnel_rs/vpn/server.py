"""The VPN server: lets clients in, gives them addresses, and keeps their packets flowing."""

import asyncio
from collections.abc import Callable
from functools import partial
from ipaddress import IPv4Address, IPv4Network

from tunnel_rs.errors import LinkClosedError, LocalError, ProtocolError, StreamResetError
from tunnel_rs.net.admission import AUTH_FAILED, Admission, RefusedError, acknowledged
from tunnel_rs.net.clock import wall_clock
from tunnel_rs.net.exchange import Exchange
from tunnel_rs.net.expiry import Expiry
from tunnel_rs.net.host_network import DeviceConfig, ForwardingConfig, HostNetwork
from tunnel_rs.net.link import ByteStream, Link
from tunnel_rs.net.tun import TunDevice
from tunnel_rs.proto.access import Pass
from tunnel_rs.proto.auth import FailurePenalties
from tunnel_rs.proto.vpn_handshake import (
    GSO,
    VpnRequest,
    VpnResponse,
    decode_request,
    encode_response,
)
from tunnel_rs.proto.vpn_heartbeat import SERVER_PATIENCE, Heartbeat
from tunnel_rs.proto.vpn_nat64 import Nat64Settings
from tunnel_rs.proto.vpn_pool import owner_of
from tunnel_rs.reports import (
    ClientGone,
    ClientRefused,
    Penalties,
    Reporter,
    VpnClientJoined,
    silent,
)
from tunnel_rs.values import Secret
from tunnel_rs.vpn.channel import PacketChannel
from tunnel_rs.vpn.pools import AddressPools
from tunnel_rs.vpn.session import Key, Session
from tunnel_rs.vpn.settings import ServerSettings
from tunnel_rs.vpn.switch import Switch
from tunnel_rs.vpn.traffic import Traffic

DONE, SERVER_FULL, REPLACED = 0, 3, 4
"""Application close codes, with those of `net.admission`."""

INVALID_TOKEN = "Invalid authentication token"
"""What everybody is told whose token is not accepted, whatever the reason."""

DATA_STREAM_TIMEOUT = 30.0
"""Seconds a client has to open its data stream; the original's is visible with its first ping,
10 seconds after the handshake."""


class VpnServer:
    """Serves any number of links on one TUN device. `start`, then `serve` for each link."""

    def __init__(
        self,
        settings: ServerSettings,
        tun: TunDevice,
        host: HostNetwork,
        report: Reporter = silent,
        *,
        penalties: FailurePenalties | None = None,
        wall: Callable[[], float] = wall_clock,
    ) -> None:
        self._settings = settings
        self._tun = tun
        self._host = host
        self._report = report
        self._wall = wall
        self._admission = Admission(timeout=settings.auth_timeout, penalties=penalties)
        self._pools = AddressPools(settings)
        own = tuple(interface.ip.packed for interface in self._pools.interfaces)
        self.switch = Switch(settings, tun, own)
        self._sessions: dict[Key, Session] = {}
        self._before = Traffic()  # of sessions that have ended
        self.begun = 0
        """How many clients have been let in."""
        self._links: set[Link] = set()
        self._no_links = asyncio.Event()
        self._no_links.set()
        self._closing = False
        self._lost: asyncio.Future[LocalError] = asyncio.get_running_loop().create_future()

    @property
    def sessions(self) -> tuple[Session, ...]:
        return tuple(self._sessions.values())

    @property
    def traffic(self) -> Traffic:
        """What all clients that are or have been here have exchanged."""
        total = Traffic()
        for traffic in (self._before, *(session.traffic for session in self.sessions)):
            total.add(traffic)
        return total

    @property
    def totals(self) -> tuple[int, int]:
        """Bytes sent and received, of the same; asked for often."""
        sent, received = self._before.sent_bytes, self._before.received_bytes
        for session in self._sessions.values():
            sent += session.traffic.sent_bytes
            received += session.traffic.received_bytes
        return sent, received

    @property
    def penalties(self) -> Penalties:
        """Who has to wait for answers after wrong tokens."""
        return self._admission.penalties

    @property
    def tokens(self) -> tuple[Secret[str], ...]:
        """Those that are accepted now."""
        return tuple(entry.credential for entry in self._settings.access.tokens)

    @property
    def device(self) -> str:
        return self._tun.name

    @property
    def addresses(self) -> tuple[str, ...]:
        """Our own, with their prefix lengths."""
        return tuple(map(str, self._pools.interfaces))

    async def start(self) -> None:
        """Set up the device and, when asked for, forwarding. Raises LocalError."""
        settings, device = self._settings, self._tun.name
        await self._host.clean(device, client=False)
        # Answers to the address of NAT64 have to come back to us.
        outside = () if settings.nat64 is None else _outside(settings.network4, settings.nat64)
        addresses = self._pools.interfaces
        device_config = DeviceConfig(addresses, settings.mtu, routes=outside)
        await self._host.set_device(device, device_config)
        if settings.forward or settings.masquerade:
            ipv6 = settings.network6 is not None
            config = ForwardingConfig(
                ipv4=settings.network4 is not None or settings.nat64 is not None,
                ipv6=ipv6,
                masquerade=settings.masquerade,
                isolate=settings.client_isolation,
            )
            await self._host.set_forwarding(device, config)
        self._tun.start(self.switch.from_device, self._device_lost)

    def apply(self, settings: ServerSettings) -> None:
        """Use the tokens of other settings from now on; who came in by one that is no longer there
        is sent away."""
        self._settings = settings
        for session in self.sessions:
            self._renew(session)

    def _renew(self, session: Session) -> None:
        """Judge somebody who is in by the present list, and again when the token runs out."""
        held = self._settings.access.renew(session.held, self._wall())
        if session.expiry is None:
            session.expiry = Expiry(self._wall, partial(self._renew, session))
        if held is None:
            session.expiry.cancel()
            session.dismissal = f"its {session.held.by} has expired or was taken away"
            session.link.close(AUTH_FAILED, "auth_failed")
            return
        session.held = held
        session.expiry.watch(held.grant)

    def disconnect(self, who: str, reason: str) -> int:
        """End the links of the clients whose id begins with `who`, or who have that address in the
        VPN; returns how many there were. They may come again, as long as their tokens hold."""
        found = [s for s in self.sessions if str(s.link.peer).startswith(who) or s.has(who)]
        for session in found:
            session.dismissal = reason
            session.link.close(DONE, reason)
        return len(found)

    async def ping(self) -> dict[str, float]:
        """Seconds to each client and back, by its id; who leaves meanwhile is left out."""
        links = [session.link for session in self.sessions]
        times = await asyncio.gather(*(link.ping() for link in links), return_exceptions=True)
        pairs = zip(links, times, strict=True)
        return {str(link.peer): time for link, time in pairs if isinstance(time, float)}

    async def serve(self, link: Link) -> None:
        """Serve one accepted link until it ends, and close it. Nothing that its peer does
        raises."""
        if self._closing:
            link.close(DONE, "done")
            return
        self._links.add(link)
        self._no_links.clear()
        try:
            entrant = _Entrant(self, link)
            await self._admission.admit(link, entrant)
            if entrant.session is None:
                await acknowledged(link)
                link.close(SERVER_FULL, "server_full")
                raise RefusedError(entrant.refusal)
            await self._serve_session(entrant.session)
        except RefusedError as refusal:
            self._report(ClientRefused(link.peer, link.address, str(refusal)))
        finally:
            link.close(DONE, "done")
            self._links.discard(link)
            if not self._links:
                self._no_links.set()

    async def run_until_lost(self) -> None:
        """Wait while the device is there. Raises LocalError when it has gone."""
        raise await self._lost

    async def close(self) -> None:
        """Close all links with code 0 `done`, and wait until every `serve` is about to return."""
        self._closing = True
        for link in list(self._links):
            link.close(DONE, "done")
        await self._no_links.wait()
        self.switch.close()

    def judge(self, request: VpnRequest, link: Link) -> Pass | str:
        """What lets a request in, or why nothing does, for us alone."""
        if request.auth_token is None:
            return "Authentication token required"
        return self._settings.access.judge(link.peer, request.auth_token, self._wall())

    def let_in(self, request: VpnRequest, link: Link, held: Pass) -> Session | str:
        """A session with addresses, or why there is none."""
        key = (link.peer.key, request.device_id)
        if key not in self._sessions and len(self._sessions) >= self._settings.max_clients:
            return "Server full"
        assert request.auth_token is not None
        leases = self._pools.allocate(key, owner_of(request.auth_token))
        if leases is None:
            return "No address is free"
        offload = self._settings.offload and self._tun.can_offload and GSO in request.capabilities
        now = asyncio.get_running_loop().time()
        session = Session(key, link, leases, offload, now, Traffic(), held)
        replaced = self._sessions.get(key)
        self._sessions[key] = session
        if replaced is not None:
            self._end(replaced)
            replaced.link.close(REPLACED, "replaced")
        self._renew(session)
        return session

    def welcome(self, session: Session) -> VpnResponse:
        """What a client that was let in is told."""
        return VpnResponse(
            True,
            session.leases.lease4,
            session.leases.lease6,
            capabilities=frozenset((GSO,)) if session.offload else frozenset(),
            resolvers=self._settings.resolvers,
            domains=self._settings.domains,
        )

    async def _serve_session(self, session: Session) -> None:
        link = session.link
        link.open_window()
        self.begun += 1
        held, addresses = session.held, session.leases.texts
        self._report(VpnClientJoined(link.peer, link.address, addresses, held.name, held.by))
        reason = "left"
        try:
            async with asyncio.timeout(DATA_STREAM_TIMEOUT):
                stream = await link.accept_stream()
            self._open_channel(session, stream)
            reason = str(await link.wait_closed())
        except TimeoutError:
            reason = f"opened no data stream in {DATA_STREAM_TIMEOUT:g} s"
        except LinkClosedError as error:
            reason = str(error)
        finally:
            self._end(session)
            if self._sessions.get(session.key) is session:
                del self._sessions[session.key]
                self._pools.release(session.key)
            self._account_for(session, session.dismissal or reason)

    def _account_for(self, session: Session, reason: str) -> None:
        """A client has gone: keep what it has moved, and tell it."""
        traffic = session.traffic
        self._before.add(traffic)
        moved = traffic.sent_bytes, traffic.received_bytes
        seconds = round(asyncio.get_running_loop().time() - session.since, 3)
        peer, name = session.link.peer, session.held.name
        self._report(ClientGone(peer, reason, name, *moved, seconds, session.leases.texts))

    def _open_channel(self, session: Session, stream: ByteStream) -> None:
        now = asyncio.get_running_loop().time()
        session.channel = PacketChannel(
            stream,
            Heartbeat(now, patience=SERVER_PATIENCE),
            session.traffic,
            offload=session.offload,
            answers_pings=True,
            ends_here=self.switch.own if self._tun.can_offload else (),
            on_packets=self.switch.from_client(session),
            on_end=lambda error: session.link.close(DONE, str(error)[:100]),
            on_resume=lambda: self.switch.resumed(session),
        )
        self.switch.add(session)
        session.channel.start()

    def _end(self, session: Session) -> None:
        if session.expiry is not None:
            session.expiry.cancel()
        self.switch.remove(session)
        if session.channel is not None:
            session.channel.close()

    def _device_lost(self, error: OSError) -> None:
        if not self._lost.done():
            reason = error.strerror or str(error)
            self._lost.set_result(LocalError(f"the device {self._tun.name} has gone: {reason}"))


def _outside(network: IPv4Network | None, nat64: Nat64Settings) -> tuple[IPv4Network, ...]:
    """The address of NAT64 unless it is in `network`."""
    source = IPv4Address(nat64.source)
    return () if network is not None and source in network else (IPv4Network(source),)


class _Entrant:
    """One client in the handshake. Let in, it has a `session`, or a `refusal` that is no fault of
    its own."""

    def __init__(self, server: VpnServer, link: Link) -> None:
        self.session: Session | None = None
        self.refusal = ""
        self._server = server
        self._link = link
        self._told = ""
        self._held: Pass
        self._exchange: Exchange
        self._request: VpnRequest

    async def judge(self, stream: ByteStream) -> str:
        self._exchange = Exchange(stream)
        try:
            self._request = decode_request(await self._exchange.receive())
        except (ProtocolError, StreamResetError) as error:
            return str(error)
        verdict = self._server.judge(self._request, self._link)
        if isinstance(verdict, str):
            if self._request.auth_token is not None:
                self._told = INVALID_TOKEN
            return verdict
        self._held = verdict
        return ""

    def refuse(self, reason: str) -> None:
        self._answer(VpnResponse(False, reason=self._told or reason))

    def accept(self) -> None:
        found = self._server.let_in(self._request, self._link, self._held)
        if isinstance(found, str):
            self.refusal = found
            self._answer(VpnResponse(False, reason=found, retry=True))
            return
        self.session = found
        self._answer(self._server.welcome(found))

    def _answer(self, response: VpnResponse) -> None:
        self._exchange.finish_encoded(encode_response(response), stop=False)
