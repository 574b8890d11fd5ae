"""Finds out what this network allows: UDP, NAT, relays, discovery, clock, socket buffers.

All parts run beside each other, each under a time limit of its own.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

from tunnel_rs.errors import LocalError
from tunnel_rs.iroh.discovery_settings import DiscoverySettings
from tunnel_rs.iroh.netcheck_findings import Buffers, Family, Findings, Nat
from tunnel_rs.iroh.netcheck_services import RelayAnswer, check_discovery, check_relay
from tunnel_rs.iroh.netcheck_udp import (
    QUIC,
    STUN,
    Target,
    UdpServer,
    check_family,
    check_nat,
    find_targets,
)
from tunnel_rs.iroh.publish import unix_microseconds
from tunnel_rs.net.interfaces import Interface, local_interfaces
from tunnel_rs.net.qad import system_trust
from tunnel_rs.net.relay_websocket import RelayClientSettings, relay_session
from tunnel_rs.net.resolver import Resolve, SystemResolver
from tunnel_rs.net.udp import BUFFER_SIZE, UdpSocket
from tunnel_rs.proto.qad import DEFAULT_PORT, Trust
from tunnel_rs.proto.relay_addr import RelayUrl
from tunnel_rs.values import HostPort, SocketAddr

RESOLVE_TIMEOUT = 3.0
"""Seconds; with the longest part after it, all is over within 10."""

MAX_RELAYS, MAX_STUN_SERVERS = 16, 4


@dataclass(frozen=True, slots=True)
class NetcheckSettings:
    """What to look at; nothing else is contacted."""

    relays: tuple[RelayUrl, ...] = ()
    discovery: DiscoverySettings = DiscoverySettings()
    stun_servers: tuple[HostPort, ...] = ()
    ca_file: Path | None = None
    """PEM file of certificate authorities trusted besides the system's."""

    qad_port: int = DEFAULT_PORT
    """UDP port of the relays' QUIC address discovery; asked only of relays with https."""


async def netcheck(
    settings: NetcheckSettings,
    *,
    resolve: Resolve | None = None,
    clock: Callable[[], int] = unix_microseconds,
) -> Findings:
    """Look at everything; takes up to 10 s. `clock`: microseconds since 1970. Raises ConfigError
    for a CA file that is none."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    trust = system_trust(settings.ca_file)
    resolve = resolve or SystemResolver(timeout=RESOLVE_TIMEOUT)
    (families, nats, unresolved), answers, discovery = await asyncio.gather(
        _udp(settings, resolve, trust),
        _relays(settings),
        check_discovery(settings.discovery, clock),
    )
    return Findings(
        families=families,
        relays=tuple(answer.relay for answer in answers),
        discovery=discovery,
        nats=nats,
        unresolved=unresolved,
        clock_skew=_skew(answers, clock, loop.time()),
        buffers=_buffers(),
        elapsed=loop.time() - began,
    )


async def _udp(
    settings: NetcheckSettings, resolve: Resolve, trust: Trust
) -> tuple[tuple[Family, ...], tuple[Nat, ...], tuple[str, ...]]:
    targets, unresolved = await find_targets(udp_servers(settings), resolve)
    interfaces = _interfaces()
    nat_targets = [t for t in targets if t.server.by == STUN and not t.address.is_ipv6]
    families = [check_family(version, targets, interfaces, trust) for version in (4, 6)]
    found, nats = await asyncio.gather(asyncio.gather(*families), _nats(nat_targets))
    return tuple(found), nats, unresolved


async def _nats(targets: Sequence[Target]) -> tuple[Nat, ...]:
    return tuple(await asyncio.gather(*map(check_nat, targets)))


def udp_servers(settings: NetcheckSettings) -> list[UdpServer]:
    """Whom to ask for our address."""
    servers = []
    for relay in settings.relays[:MAX_RELAYS]:
        host = urlsplit(relay.text).hostname
        if relay.is_encrypted and host:
            servers.append(UdpServer(HostPort(host, settings.qad_port), QUIC))
    servers += [UdpServer(where, STUN) for where in settings.stun_servers[:MAX_STUN_SERVERS]]
    return servers


def _interfaces() -> tuple[Interface, ...]:
    try:
        return local_interfaces()
    except OSError:
        return ()


async def _relays(settings: NetcheckSettings) -> list[RelayAnswer]:
    options = RelayClientSettings(ca_file=settings.ca_file)
    async with relay_session(options) as session:
        checks = [check_relay(relay, session, options) for relay in settings.relays[:MAX_RELAYS]]
        return await asyncio.gather(*checks)


def _skew(answers: Sequence[RelayAnswer], clock: Callable[[], int], now: float) -> float | None:
    """How far our clock is ahead, by the median of the relays'; a Date header has whole seconds,
    cut off."""
    local = clock() / 1e6
    skews = [
        local - (now - answer.at) - (answer.date + 0.5)
        for answer in answers
        if answer.date is not None
    ]
    return median(skews) if skews else None


def _buffers() -> Buffers | None:
    try:
        sock = UdpSocket.bind(SocketAddr("127.0.0.1", 0))
    except (LocalError, OSError):
        return None
    try:
        return Buffers(BUFFER_SIZE, sock.receive_buffer, sock.send_buffer)
    finally:
        sock.close()
