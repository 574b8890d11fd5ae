"""The UDP part of `netcheck`: which addresses our sockets have, here and as servers see them."""

import asyncio
import socket
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address
from typing import NamedTuple

from tunnel_rs.errors import LocalError, ProtocolError, TargetError, UnreachableError
from tunnel_rs.iroh.netcheck_findings import Family, Mapping, Nat
from tunnel_rs.net.interfaces import Interface
from tunnel_rs.net.nat_type import nat_type
from tunnel_rs.net.qad import AddressDiscovery
from tunnel_rs.net.resolver import Resolve
from tunnel_rs.net.stun import StunClient
from tunnel_rs.net.udp import UdpSocket, sock_addr
from tunnel_rs.proto.qad import Trust
from tunnel_rs.values import HostPort, SocketAddr

ANSWER_TIMEOUT = 4.0
NAT_TIMEOUT = 6.0
QUIC, STUN = "QUIC", "STUN"

_ANYWHERE = {4: "192.0.2.1", 6: "2001:db8::1"}
"""Addresses for documentation: what has a route to them has one to the internet. Nothing is
sent."""


class UdpServer(NamedTuple):
    """Somebody to ask for our address: by QUIC address discovery or by STUN."""

    where: HostPort
    by: str

    @property
    def tls_name(self) -> str:
        return self.where.host.removesuffix(".")


class Target(NamedTuple):
    """A server at one of its addresses."""

    server: UdpServer
    address: SocketAddr


async def find_targets(
    servers: Sequence[UdpServer], resolve: Resolve
) -> tuple[list[Target], tuple[str, ...]]:
    """Each server's first address of each family, and the STUN servers that could not be resolved,
    in words (what is wrong with a relay is told where it is asked as a relay)."""
    targets: list[Target] = []
    problems: dict[str, None] = {}
    answers = await asyncio.gather(*(_resolved(server, resolve) for server in servers))
    for server, answer in zip(servers, answers, strict=True):
        if isinstance(answer, str):
            if server.by == STUN:
                problems[answer] = None
            continue
        for version in (4, 6):
            ip = next((ip for ip in answer if ip_address(ip).version == version), None)
            if ip is not None:
                targets.append(Target(server, SocketAddr(ip, server.where.port)))
    return targets, tuple(problems)


async def _resolved(server: UdpServer, resolve: Resolve) -> list[str] | str:
    try:
        return await resolve(server.where.host)
    except TargetError as error:
        return str(error)


def source_address(target: SocketAddr) -> str | None:
    """Our address on the way to `target`; None without a way. Nothing is sent."""
    family = socket.AF_INET6 if target.is_ipv6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(sock_addr(target))
            return str(probe.getsockname()[0])
    except OSError:
        return None


async def check_family(
    version: int, targets: Sequence[Target], interfaces: Sequence[Interface], trust: Trust
) -> Family:
    """Ask all targets of a family from one socket, so that its mappings can be compared."""
    name = f"IPv{version}"
    ips = [ip for each in interfaces for ip in each.ips if ip.version == version]
    addresses = tuple(str(ip) for ip in ips if not (ip.is_loopback or ip.is_link_local))
    route = source_address(SocketAddr(_ANYWHERE[version], 9)) is not None
    try:
        sock = UdpSocket.bind(SocketAddr("::" if version == 6 else "0.0.0.0", 0))
    except (LocalError, OSError):
        return Family(name, addresses, route, None)
    stun = StunClient(sock)
    discovery = AddressDiscovery(sock, stun)
    sock.start(discovery)
    bound = sock.address
    try:
        asked = [
            _ask(target, stun, discovery, trust)
            for target in targets
            if target.address.is_ipv6 == (version == 6) and source_address(target.address)
        ]
        return Family(name, addresses, route, bound, tuple(await asyncio.gather(*asked)))
    finally:
        discovery.close()
        sock.close()


async def _ask(
    target: Target, stun: StunClient, discovery: AddressDiscovery, trust: Trust
) -> Mapping:
    server, address = target
    found = Mapping(str(server.where), server.by, address)
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT):
            if server.by == STUN:
                return replace(found, address=await stun.mapped_address(address), answered=True)
            session = discovery.dial(address, server.tls_name, trust)
            try:
                return replace(found, address=await session.observed(), answered=True)
            except UnreachableError as error:
                problem = str(error).removeprefix(f"{address}: ")
                return replace(found, answered=session.was_answered, problem=problem)
            finally:
                session.close()
    except TimeoutError:
        return replace(found, problem="no answer")
    except ProtocolError as error:
        return replace(found, answered=True, problem=str(error))
    except (UnreachableError, RuntimeError) as error:
        return replace(found, problem=str(error).removeprefix(f"{address}: "))


async def check_nat(target: Target) -> Nat:
    """What pystun3 makes of the STUN server's answers. Sends some dozen small datagrams."""
    name = str(target.server.where)
    source = source_address(target.address)
    if source is None:
        return Nat(name, problem="no way to it")
    try:
        found = await nat_type(target.address, source, timeout=NAT_TIMEOUT)
    except UnreachableError as error:
        return Nat(name, problem=str(error).removeprefix(f"{target.address}: "))
    return Nat(name, found.kind, found.external)
