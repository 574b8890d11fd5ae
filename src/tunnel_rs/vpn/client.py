"""The VPN client: one TUN device, one link to the server, reconnected when it is lost.

The device and its routes stay while the link is away, so nothing leaves by another way meanwhile.
"""

import asyncio
import random
import secrets
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Interface, IPv6Interface, ip_address
from typing import Any

from tunnel_rs.errors import (
    AuthRefusedError,
    LinkClosedError,
    LocalError,
    ProtocolError,
    StreamResetError,
    TunnelError,
    UnreachableError,
)
from tunnel_rs.net.admission import AUTH_FAILED
from tunnel_rs.net.exchange import Exchange
from tunnel_rs.net.host_network import DeviceConfig, HostNetwork, RouteConfig
from tunnel_rs.net.interfaces import local_interfaces
from tunnel_rs.net.link import Link
from tunnel_rs.net.tun import TunDevice
from tunnel_rs.proto.retries import Retries
from tunnel_rs.proto.vpn_frames import Offloaded
from tunnel_rs.proto.vpn_handshake import (
    GSO,
    Lease4,
    Lease6,
    VpnRequest,
    VpnResponse,
    decode_response,
    encode_request,
)
from tunnel_rs.proto.vpn_heartbeat import CLIENT_PATIENCE, PING_INTERVAL, Heartbeat
from tunnel_rs.proto.vpn_icmp import IPV6_MIN_MTU
from tunnel_rs.reports import Notice, Reporter, TunnelLost, TunnelUp, VpnUp, silent
from tunnel_rs.values import SocketAddr
from tunnel_rs.vpn.channel import PacketChannel
from tunnel_rs.vpn.settings import ClientSettings, Network
from tunnel_rs.vpn.traffic import Traffic

LOOK_EVERY = 2.0
"""Seconds between looks at the interfaces, while waiting to try again."""

Connect = Callable[[], Awaitable[Link]]
"""Dials the server once. Raises TunnelError; `transient` says whether to try again."""

DONE = 0
REVOKED = "the server no longer accepts our token (expired or taken away); ask its operator"
ANSWER_TIMEOUT = 10.0
"""Seconds the server has to answer our request."""

CONNECT_GRACE = 1.0
"""Seconds beyond the connect timeout: dialling keeps to it itself, and knows better what failed."""


class VpnClient:
    """Keeps a tunnel up while `run` runs."""

    def __init__(
        self,
        settings: ClientSettings,
        tun: TunDevice,
        host: HostNetwork,
        connect: Connect,
        report: Reporter = silent,
        *,
        random: Callable[[], float] = random.random,
        device_id: int | None = None,
        network: Callable[[], object] = local_interfaces,
    ) -> None:
        """Owns the device. When `network` gives something else than before, it has changed."""
        self.traffic = Traffic()
        self.link: Link | None = None
        """The link in use, None while there is none."""
        self.response: VpnResponse | None = None
        """What the server last told us."""
        self.begun = 0
        """How many times there has been a link."""
        self.since = 0.0
        """When the link came up; loop time in seconds."""
        self.routes: tuple[Network, ...] = ()
        """What goes into the VPN, besides its own networks."""
        self._settings = settings
        self._tun = tun
        self._host = host
        self._connect = connect
        self._report = report
        # A number of attempts is meant to last for a while.
        self._retries = Retries(random=random, eager=settings.max_attempts is None)
        self._network = network
        self._device_id = secrets.randbits(64) if device_id is None else device_id
        self._channel: PacketChannel | None = None
        self._started = False
        self._lost: asyncio.Future[LocalError] = asyncio.get_running_loop().create_future()
        self._stop: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._hurry: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ended = asyncio.Event()
        self._ended.set()

    @property
    def device(self) -> str:
        return self._tun.name

    async def run(self) -> None:
        """Connect, and reconnect when the link is lost. Returns after `close`; raises what ends it
        otherwise: LocalError, AuthRefusedError, WrongPeerError, or any failure when it is not to
        reconnect or has tried often enough. Then everything is undone and closed."""
        self._ended.clear()
        try:
            await self._prepare()
            await self._keep_up()
        finally:
            self._tun.close()
            await self._host.undo()
            self._ended.set()

    async def _prepare(self) -> None:
        """Nothing of an earlier client is left; what a kill switch is for is blocked from now."""
        settings = self._settings
        await self._host.clean(self._tun.name, client=True)
        if settings.kill_switch:
            config = RouteConfig((), kill_switch=True, blocked=settings.routes)
            await self._host.set_routes(self._tun.name, config)

    async def ping(self) -> dict[str, float]:
        """Seconds to the server and back, by its id. Raises LinkClosedError."""
        return {} if self.link is None else {str(self.link.peer): await self.link.ping()}

    def retry_now(self) -> None:
        """What could not be reached may be reachable now: do not wait to try again."""
        if not self._hurry.done():
            self._hurry.set_result(None)

    async def close(self) -> None:
        """End the tunnel in order, and wait until `run` has undone everything."""
        if not self._stop.done():
            self._stop.set_result(None)
        await self._ended.wait()

    async def _keep_up(self) -> None:
        failed = 0
        while not self._stop.done():
            was_up, error = await self._one_tunnel()
            if self._stop.done():
                return
            if was_up:
                failed = 0
                self._retries.up()
            else:
                failed += 1
            if not error.transient or not self._settings.reconnect:
                self._report(TunnelLost(str(error), None))
                raise error
            limit = self._settings.max_attempts
            if limit is not None and failed >= limit:
                self._report(TunnelLost(str(error), None))
                raise UnreachableError(f"gave up after {failed} attempt(s): {error}")
            await self._wait(self._delay(error, was_up))

    def _delay(self, error: TunnelError, was_up: bool) -> float:
        """Seconds until the next attempt. People are told, unless they know."""
        retries, now = self._retries, asyncio.get_running_loop().time()
        delay = retries.after(error, now, was_up=was_up)
        if retries.is_news(str(error), now):
            self._report(TunnelLost(str(error), delay))
        return delay

    async def _wait(self, delay: float) -> None:
        """Until it is time to try again, or news make it worth while, or there is no more use."""
        loop = asyncio.get_running_loop()
        self._hurry = loop.create_future()
        until, before = loop.time() + delay, self._look()
        while (left := until - loop.time()) > 0:
            futures = self._stop, self._lost, self._hurry
            await _first_of(*futures, timeout=min(left, LOOK_EVERY))
            if any(each.done() for each in futures) or self._look() != before:
                return

    def _look(self) -> object:
        try:
            return self._network()
        except OSError:
            return None

    async def _one_tunnel(self) -> tuple[bool, TunnelError]:
        """Whether there was a tunnel, and why there is none (any more)."""
        if self._lost.done():
            return False, self._lost.result()
        try:
            return True, await self._tunnel(await self._establish())
        except TunnelError as error:
            return False, _verdict(error)
        except OSError as error:
            return False, UnreachableError(f"cannot connect: {error.strerror or error}")

    async def _establish(self) -> Link:
        loop = asyncio.get_running_loop()
        began, limit = loop.time(), self._settings.connect_timeout
        try:
            async with asyncio.timeout(limit + CONNECT_GRACE):
                link = await self._connect()
        except TimeoutError:
            raise UnreachableError(f"the server did not answer in {limit:g} s") from None
        try:
            await self._exclude(link)
            self.response = await self._ask(link)
            self._report(TunnelUp(link.peer, link.address, loop.time() - began))
            await self._configure(self.response)
        except BaseException:
            link.close(DONE, "done")
            raise
        return link

    async def _exclude(self, link: Link) -> None:
        """Where marks do not keep the tunnel out of itself, a route to the peer does."""
        try:
            ip = SocketAddr.parse(link.address).ip
        except ValueError:
            return  # by a relay
        await self._host.exclude(ip_address(ip))

    async def _ask(self, link: Link) -> VpnResponse:
        settings = self._settings
        offload = settings.offload and self._tun.can_offload
        capabilities = frozenset((GSO,)) if offload else frozenset[str]()
        exchange = Exchange(await link.open_stream())
        exchange.send_encoded(
            encode_request(VpnRequest(self._device_id, settings.auth_token, capabilities))
        )
        exchange.stream.write_eof()
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT):
                response = decode_response(await exchange.receive())
        except TimeoutError:
            raise UnreachableError(f"the server did not answer in {ANSWER_TIMEOUT:g} s") from None
        except StreamResetError:
            raise UnreachableError("the server broke off the handshake") from None
        finally:
            exchange.finish_encoded(stop=False)
        if not response.accepted:
            raise _refusal(response)
        return response

    async def _configure(self, response: VpnResponse) -> None:
        """Give the device what the server assigned, and lead the routes into it."""
        settings = self._settings
        leases = self._usable(response)
        interfaces = tuple(_interface(lease.address, lease.network) for lease in leases)
        versions = {lease.address.version for lease in leases}
        networks: list[Network] = [lease.network for lease in leases]
        routes = tuple(route for route in settings.routes if route.version in versions)
        others = tuple(route for route in settings.routes if route.version not in versions)
        if others:
            blocked = "blocked by the kill switch" if settings.kill_switch else "not in the VPN"
            family = f"IPv{others[0].version}"
            text = f"there is no {family} address of the VPN: {', '.join(map(str, others))}"
            self._report(Notice("warning", f"{text} is {blocked}"))
        resolvers = settings.resolvers
        if not resolvers and settings.accept_dns:
            resolvers = response.resolvers
        device = DeviceConfig(interfaces, settings.mtu, connected=False)
        await self._host.set_device(self._tun.name, device)
        config = RouteConfig(
            (*networks, *routes),
            settings.kill_switch,
            others if settings.kill_switch else (),
            resolvers,
            response.domains if resolvers == response.resolvers else (),
        )
        await self._host.set_routes(self._tun.name, config)
        self.routes = routes
        shown = tuple(map(str, routes))
        self._report(VpnUp(self._tun.name, tuple(map(str, interfaces)), shown))

    def _usable(self, response: VpnResponse) -> list[Lease4 | Lease6]:
        """The leases this machine can have. Raises LocalError when there is none."""
        leases: list[Lease4 | Lease6] = []
        if response.lease4 is not None:
            leases.append(response.lease4)
        if response.lease6 is not None:
            if self._settings.mtu < IPV6_MIN_MTU:
                problem = f"an mtu of {self._settings.mtu}, and IPv6 needs {IPV6_MIN_MTU}"
            elif not self._host.has_ipv6:
                problem = "no IPv6 on this machine"
            else:
                return [*leases, response.lease6]
            if not leases:
                raise LocalError(f"the server gives an IPv6 address only, and there is {problem}")
            self._report(Notice("warning", f"IPv6 of the VPN is not used: there is {problem}"))
        return leases

    async def _tunnel(self, link: Link) -> TunnelError:
        """Carry packets until the link is lost; why it was."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[TunnelError] = loop.create_future()

        def on_end(error: TunnelError) -> None:
            if not ended.done():
                ended.set_result(error)

        try:
            link.open_window()
            assert self.response is not None
            channel = PacketChannel(
                await link.open_stream(),
                Heartbeat(loop.time(), patience=CLIENT_PATIENCE, interval=PING_INTERVAL),
                self.traffic,
                offload=GSO in self.response.capabilities and self._tun.can_offload,
                answers_pings=False,
                ends_here=_addresses(self.response) if self._tun.can_offload else (),
                on_packets=self._from_server,
                on_end=on_end,
                on_resume=self._tun.resume_reading,
            )
            self._attach(channel, link)
            await _first_of(ended, self._stop, self._lost)
            if self._lost.done():
                return self._lost.result()
            error = ended.result() if ended.done() else UnreachableError("the client was stopped")
        except LinkClosedError as lost:
            error = lost
        finally:
            self._detach(link)
        return _verdict(error, was_in=True)

    def _attach(self, channel: PacketChannel, link: Link) -> None:
        self._channel, self.link = channel, link
        self.begun, self.since = self.begun + 1, asyncio.get_running_loop().time()
        self._tun.set_offload(channel.offload)
        channel.start()
        self._tun.resume_reading()
        if not self._started:
            self._started = True
            self._tun.start(self._from_device, self._device_lost)

    def _detach(self, link: Link) -> None:
        """What the system sends meanwhile waits in the device, or is dropped by it."""
        channel, self._channel, self.link = self._channel, None, None
        self._tun.pause_reading()
        if channel is not None:
            channel.close()
        link.close(DONE, "done")

    def _from_device(self, packets: list[Offloaded]) -> None:
        channel = self._channel
        if channel is not None:
            channel.send(packets)
            if channel.paused:
                self._tun.pause_reading()

    def _from_server(self, packets: list[Offloaded]) -> None:
        write = self._tun.write
        for header, packet in packets:
            if not write(header, packet):
                self.traffic.dropped["refused by the system"] += 1
        self._tun.read_now()

    def _device_lost(self, error: OSError) -> None:
        if not self._lost.done():
            reason = error.strerror or str(error)
            self._lost.set_result(LocalError(f"the device {self._tun.name} has gone: {reason}"))


async def _first_of(*futures: asyncio.Future[Any], timeout: float | None = None) -> None:
    await asyncio.wait(futures, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)


def _addresses(response: VpnResponse) -> tuple[bytes, ...]:
    leases = (response.lease4, response.lease6)
    return tuple(lease.address.packed for lease in leases if lease is not None)


def _interface(address: object, network: Network) -> IPv4Interface | IPv6Interface:
    text = f"{address}/{network.prefixlen}"
    return IPv4Interface(text) if network.version == 4 else IPv6Interface(text)


def _refusal(response: VpnResponse) -> TunnelError:
    reason = response.reason or "no reason given"
    if response.retry:
        return UnreachableError(f"the server cannot take us now ({reason})")
    return AuthRefusedError(
        f"the server refused us ({reason}); check the token with the server's operator"
    )


def _verdict(error: TunnelError, *, was_in: bool = False) -> TunnelError:
    """What the end of a link means to a client, which may have been let in before."""
    if isinstance(error, ProtocolError):
        return UnreachableError(f"the server broke the protocol: {error}")
    if isinstance(error, LinkClosedError) and error.by_peer and error.by_application:
        if error.code == AUTH_FAILED and was_in:
            return AuthRefusedError(REVOKED)
        if error.code == AUTH_FAILED:
            return _refusal(VpnResponse(False, reason=error.reason))
    return error
