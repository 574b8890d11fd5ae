"""What the discovery tests share: identities, packets, a scripted DNS server, a DNS server of ours
on loopback, and a wall clock that stands still until it is moved."""

import asyncio
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import cast

from tunnel_rs.proto.dns_wire import (
    Query,
    RecordType,
    ResourceRecord,
    Response,
    ResponseCode,
    encode_response,
    encode_strings,
    parse_query,
)
from tunnel_rs.proto.pkarr import EndpointRecord, SignedPacket
from tunnel_rs.selfhost.dns_server import DnsServer
from tunnel_rs.selfhost.dns_settings import DnsServerSettings, DnsSettings
from tunnel_rs.values import Secret, SocketAddr

NOW = 1_795_000_000_000_000
"""Microseconds since 1970, in November 2026."""

ORIGIN = "dns.iroh.link."
RELAY_RECORD = EndpointRecord(("https://relay.example/",))
LOOPBACK = SocketAddr("127.0.0.1", 0)


class WallClock:
    """Microseconds since 1970, moved by hand."""

    def __init__(self, now: int = NOW) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now


def seed(number: int) -> Secret[bytes]:
    """One of many identities."""
    return Secret(struct.pack(">Q", number) * 4)


def packet(
    number: int = 1, record: EndpointRecord = RELAY_RECORD, timestamp: int = NOW
) -> SignedPacket:
    """A signed packet of identity `number`."""
    return SignedPacket.for_record(seed(number), timestamp, record)


def server_settings(**changes: object) -> DnsServerSettings:
    """A discovery server on loopback, free ports, in memory."""
    settings = DnsServerSettings(
        http=LOOPBACK, dns=DnsSettings(bind=LOOPBACK, origins=(ORIGIN,)), metrics=LOOPBACK
    )
    return replace(settings, **changes)  # type: ignore[arg-type]


@asynccontextmanager
async def dns_server(**changes: object) -> AsyncIterator[DnsServer]:
    """A running discovery server of ours."""
    server = DnsServer(server_settings(**changes), clock=WallClock())
    await server.start()
    try:
        yield server
    finally:
        await server.close()


Script = Callable[[Query, int], bytes | None]
"""Answer to a query, given how many came before it; None for silence."""


class ScriptedDns(asyncio.DatagramProtocol):
    """A DNS server that does what a test says, right or wrong."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._transport: asyncio.DatagramTransport | None = None
        self.queries: list[Query] = []
        self.times: list[float] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        assert self._transport is not None
        query = parse_query(data)
        answer = self._script(query, len(self.queries))
        self.queries.append(query)
        self.times.append(asyncio.get_running_loop().time())
        if answer is not None:
            self._transport.sendto(answer, addr)


@asynccontextmanager
async def scripted_dns(script: Script) -> AsyncIterator[tuple[ScriptedDns, SocketAddr]]:
    """The server and where it listens."""
    transport, protocol = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: ScriptedDns(script), local_addr=("127.0.0.1", 0)
    )
    try:
        yield protocol, SocketAddr(*transport.get_extra_info("sockname")[:2])
    finally:
        transport.abort()
        await asyncio.sleep(0)


def txt_answer(query: Query, *strings: bytes, owner: tuple[bytes, ...] | None = None) -> bytes:
    """A positive answer with one TXT record for each string."""
    name = query.name if owner is None else owner
    records = tuple(
        ResourceRecord(name, RecordType.TXT, 30, encode_strings([string])) for string in strings
    )
    return encode_response(query, Response(ResponseCode.NOERROR, records), 4096)


def no_such_name(query: Query) -> bytes:
    """A negative answer that resolvers may keep for a while."""
    soa = ResourceRecord(
        query.name[1:], RecordType.SOA, 30, b"\0\0" + struct.pack(">5I", *[30] * 5)
    )
    return encode_response(query, Response(ResponseCode.NXDOMAIN, authority=(soa,)), 4096)
