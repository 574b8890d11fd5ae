"""Our own ICE candidates: the addresses of this machine, how STUN servers see them, and a relay."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from aioice import stun
from aioice.candidate import Candidate, candidate_foundation, candidate_priority
from aioice.ice import relayed_candidate

from tunnel_rs.errors import LocalError, TargetError
from tunnel_rs.net.ice_connection import IceConnection, IceProtocol
from tunnel_rs.net.interfaces import local_interfaces
from tunnel_rs.net.resolver import Resolve
from tunnel_rs.net.tasks import TaskScope
from tunnel_rs.proto.ice_servers import TurnServer, TurnTransport
from tunnel_rs.reports import Notice, Reporter
from tunnel_rs.values import HostPort, SocketAddr

STUN_TIMEOUT = 3.0
"""Seconds for STUN servers to answer, all asked at once."""
STUN_GRACE = 0.5
"""Seconds that other sockets get once one of a family has its answer: an interface that leads
nowhere must not cost the whole timeout."""
TURN_TIMEOUT = 5.0

MAX_HOSTS = 12
"""Addresses of this machine that are used; hosts of containers have hundreds."""
MAX_STUN_SERVERS = 8

_IPV4_PREFERENCE, _IPV6_PREFERENCE = 65_535, 65_534
_REFLEXIVE_OFFSET = 32_768


@dataclass(frozen=True, slots=True)
class IceServers:
    """Who helps to find candidates."""

    stun: tuple[HostPort, ...] = ()
    turn: tuple[TurnServer, ...] = ()


@dataclass(slots=True)
class Mapping:
    """How one socket is seen by a STUN server, which has to be asked again to keep it open."""

    protocol: IceProtocol
    server: SocketAddr
    address: SocketAddr


def host_addresses() -> tuple[str, ...]:
    """The addresses of this machine that others may reach, at most `MAX_HOSTS`; loopback when
    there is no other, so that two programs on one machine without a network still meet."""
    ips = [ip for interface in local_interfaces() for ip in interface.ips]
    usable = [ip for ip in ips if not (ip.is_loopback or ip.is_link_local or ip.is_multicast)]
    return tuple(str(ip) for ip in usable)[:MAX_HOSTS] or ("127.0.0.1",)


def host_candidate(address: SocketAddr, rank: int) -> Candidate:
    """The candidate of a socket of ours; `rank` counts from 0 for the most preferred."""
    preference = (_IPV6_PREFERENCE if address.is_ipv6 else _IPV4_PREFERENCE) - 2 * rank
    return Candidate(
        candidate_foundation("host", "udp", address.ip),
        1,
        "udp",
        candidate_priority(1, "host", preference),
        address.ip,
        address.port,
        "host",
    )


def reflexive_candidate(base: Candidate, seen: SocketAddr) -> Candidate:
    """The candidate that a STUN server's view of a host candidate's socket makes."""
    preference = ((base.priority >> 8) & 0xFFFF) - _REFLEXIVE_OFFSET
    return Candidate(
        candidate_foundation("srflx", "udp", base.host),
        1,
        "udp",
        candidate_priority(1, "srflx", preference),
        seen.ip,
        seen.port,
        "srflx",
        base.host,
        base.port,
    )


async def resolve_servers(
    servers: Sequence[HostPort], resolve: Resolve, report: Reporter
) -> tuple[SocketAddr, ...]:
    """All addresses of the STUN servers; those whose name is not known are reported."""
    found: dict[SocketAddr, None] = {}

    async def look_up(server: HostPort) -> None:
        try:
            ips = await resolve(server.host)
        except TargetError as error:
            report(Notice("warning", f"STUN server {server}: {error}"))
            return
        found.update(dict.fromkeys(SocketAddr(ip, server.port) for ip in ips))

    async with TaskScope("stun names") as scope:
        for server in servers[:MAX_STUN_SERVERS]:
            scope.spawn(look_up(server), str(server))
        await scope.join()
    return tuple(found)[:MAX_STUN_SERVERS]


async def ask_stun(protocol: IceProtocol, server: SocketAddr, retransmissions: int) -> SocketAddr:
    """How `server` sees the socket of `protocol`. Raises stun.TransactionError, ValueError."""
    request = stun.Message(stun.Method.BINDING, stun.Class.REQUEST)
    response, _ = await protocol.request(request, (server.ip, server.port), None, retransmissions)
    attributes = response.attributes
    seen = attributes.get("XOR-MAPPED-ADDRESS") or attributes.get("MAPPED-ADDRESS")
    if seen is None:
        raise ValueError("the answer names no address")
    ip = ip_address(seen[0])
    if ip.is_unspecified or ip.is_multicast or seen[1] == 0:
        raise ValueError("the answer names an impossible address")
    return SocketAddr(seen[0], seen[1])


async def find_mappings(
    protocols: Sequence[IceProtocol], servers: Sequence[SocketAddr], timeout: float = STUN_TIMEOUT
) -> list[Mapping]:
    """Ask all servers from all sockets at once; for each socket the first answer counts."""
    pairs = [
        (protocol, server)
        for protocol in protocols
        for server in servers
        if server.is_ipv6 == (":" in protocol.local_candidate.host)
    ]
    found: dict[IceProtocol, Mapping] = {}
    open_questions = len(pairs)
    answered = asyncio.Event()

    async def ask(protocol: IceProtocol, server: SocketAddr) -> None:
        nonlocal open_questions
        try:
            seen = await ask_stun(protocol, server, retransmissions=3)
            found.setdefault(protocol, Mapping(protocol, server, seen))
        except (stun.TransactionError, ValueError):
            pass
        open_questions -= 1
        answered.set()

    loop = asyncio.get_running_loop()
    sockets = len({protocol for protocol, _ in pairs})
    async with TaskScope("stun") as scope:
        for protocol, server in pairs:
            scope.spawn(ask(protocol, server), f"{protocol} {server}")
        try:
            async with asyncio.timeout(timeout) as limit:
                while open_questions and len(found) < sockets:
                    answered.clear()
                    await answered.wait()
                    if found:
                        limit.reschedule(min(limit.when() or 0, loop.time() + STUN_GRACE))
        except TimeoutError:
            pass
    return list(found.values())


async def allocate_relay(
    connection: IceConnection, server: TurnServer, resolve: Resolve, timeout: float = TURN_TIMEOUT
) -> IceProtocol:
    """Get an address at a TURN server and adopt it. Raises LocalError with the reason."""
    # The certificate of a TLS server is checked against the name, so it must stay one.
    host = server.address.host
    try:
        async with asyncio.timeout(timeout):
            if server.transport is not TurnTransport.TLS:
                host = (await resolve(host))[0]
            candidate, protocol = await relayed_candidate(
                component=1,
                hide_related_address=False,
                protocol_factory=lambda: IceProtocol(connection),
                turn_server=(host, server.address.port),
                turn_username=server.username,
                turn_password=server.password.reveal(),
                turn_ssl=server.transport is TurnTransport.TLS,
                turn_transport="udp" if server.transport is TurnTransport.UDP else "tcp",
            )
    except TimeoutError:
        raise LocalError(f"{server}: no answer in {timeout:g} s") from None
    except stun.TransactionError as error:
        raise LocalError(f"{server}: {_refusal(error)}") from None
    except (OSError, TargetError, KeyError, ValueError) as error:
        raise LocalError(f"{server}: {error}") from None
    assert isinstance(protocol, IceProtocol)
    connection.adopt(protocol, candidate)
    return protocol


def _refusal(error: stun.TransactionError) -> str:
    response = error.response
    code = response.error_code if response is not None else None
    if code == 401:
        return "user or password are wrong"
    return f"refused with code {code}" if code is not None else "no answer"
