import asyncio
import gc

import pytest
from tests.support.discovery import (
    ORIGIN,
    RELAY_RECORD,
    Script,
    dns_server,
    no_such_name,
    packet,
    scripted_dns,
    txt_answer,
)

from tunnel_rs.errors import PeerNotFoundError
from tunnel_rs.iroh.discovery_settings import DiscoverySettings
from tunnel_rs.iroh.pkarr_client import PkarrClient
from tunnel_rs.iroh.resolve import (
    DnsResolver,
    MarkedDnsResolver,
    PkarrResolver,
    Resolver,
    make_resolver,
)
from tunnel_rs.net import marked_dns
from tunnel_rs.net.marked_dns import MarkedDns
from tunnel_rs.proto.dns_wire import (
    Query,
    RecordType,
    ResourceRecord,
    Response,
    ResponseCode,
    encode_response,
    encode_strings,
)
from tunnel_rs.proto.pkarr import EndpointRecord
from tunnel_rs.values import EndpointId, SocketAddr

PACKET = packet()
PEER = PACKET.endpoint_id
RELAY = b"relay=https://relay.example/"
QUICK = (0.0, 0.01, 0.02)


async def records(resolver: Resolver, peer: EndpointId = PEER) -> list[EndpointRecord]:
    return [record async for record in resolver.resolve(peer)]


async def asked(
    script: Script, *, timeout: float = 0.2, delays: tuple[float, ...] = QUICK
) -> tuple[list[EndpointRecord], list[Query]]:
    """What a resolver finds at a server that follows `script`, and what it asked."""
    async with scripted_dns(script) as (server, address):
        resolver = DnsResolver(ORIGIN, nameservers=[address], delays=delays, timeout=timeout)
        return await records(resolver), server.queries


async def failure(script: Script, *, timeout: float = 0.05) -> str:
    """Why a resolver finds nothing there."""
    with pytest.raises(PeerNotFoundError) as caught:
        await asked(script, timeout=timeout)
    assert "\n" not in str(caught.value)
    return str(caught.value)


async def test_a_record_in_the_dns_is_found_with_one_question() -> None:
    found, queries = await asked(
        lambda query, _: txt_answer(query, RELAY, b"addr=10.0.0.1:7"), timeout=5, delays=(0.0, 5.0)
    )
    assert found == [EndpointRecord(("https://relay.example/",), (SocketAddr("10.0.0.1", 7),))]
    assert len(queries) == 1
    assert queries[0].type == RecordType.TXT
    assert queries[0].name == (b"_iroh", PEER.z32.encode(), b"dns", b"iroh", b"link")
    assert queries[0].edns is not None


async def test_a_lost_answer_is_made_up_for_by_the_next_question() -> None:
    found, queries = await asked(lambda query, n: txt_answer(query, RELAY) if n == 2 else None)
    assert found == [RELAY_RECORD]
    assert len(queries) == 3


async def test_a_negative_answer_is_not_believed_for_the_next_question() -> None:
    def late(query: Query, number: int) -> bytes:
        return no_such_name(query) if number < 2 else txt_answer(query, RELAY)

    found, queries = await asked(late)
    assert found == [RELAY_RECORD]
    assert len(queries) == 3


async def test_every_repeat_that_fails_counts_and_the_reason_is_told() -> None:
    text = await failure(lambda query, _: no_such_name(query))
    assert text == (
        f"no record of {PEER.short} under dns.iroh.link. in the DNS: no such name (asked 3 times)"
    )


async def test_a_server_that_never_answers_is_given_up() -> None:
    assert "no answer in time (asked 3 times)" in await failure(lambda *_: None)


async def test_nobody_listening_is_given_up() -> None:
    async with scripted_dns(lambda *_: None) as (_, address):
        pass
    resolver = DnsResolver(ORIGIN, nameservers=[address], delays=QUICK, timeout=0.05)
    with pytest.raises(PeerNotFoundError, match="asked 3 times"):
        await resolver.look_up(PEER)


def two_strings_in_one_record(query: Query) -> bytes:
    data = encode_strings([b"relay=https://rel", b"ay.example/"])
    answers = (ResourceRecord(query.name, RecordType.TXT, 30, data),)
    return encode_response(query, Response(ResponseCode.NOERROR, answers), 4096)


async def test_several_strings_of_one_record_are_joined() -> None:
    found, _ = await asked(lambda query, _: two_strings_in_one_record(query))
    assert found == [RELAY_RECORD]


@pytest.mark.parametrize(
    ("strings", "reason"),
    [
        ([RELAY, b"color=blue"], "iroh does not know"),
        ([RELAY, b"v4"], "without '='"),
        ([RELAY, b"\xff="], "not UTF-8"),
        ([b"addr=nowhere"], "names no way"),
        ([b"addr=224.0.0.1:1"], "names no way"),
        ([], "no such name"),
    ],
)
async def test_a_wrong_record_is_no_record(strings: list[bytes], reason: str) -> None:
    assert reason in await failure(lambda query, _: txt_answer(query, *strings))


async def test_records_of_other_names_are_ignored() -> None:
    other = (b"_iroh", b"other", b"dns", b"iroh", b"link")
    text = await failure(lambda query, _: txt_answer(query, RELAY, owner=other))
    assert "names no way" in text


@pytest.mark.parametrize("code", [ResponseCode.SERVFAIL, ResponseCode.REFUSED, ResponseCode.NOTIMP])
async def test_a_server_that_fails_or_refuses_is_told_as_such(code: ResponseCode) -> None:
    text = await failure(lambda query, _: encode_response(query, Response(code), 512))
    assert "no such name" not in text
    assert "asked 3 times" in text


@pytest.mark.parametrize("garbage", [b"", b"x", bytes(12), b"\xff" * 600])
async def test_garbage_from_a_server_is_survived(garbage: bytes) -> None:
    def answer(query: Query, _: int) -> bytes:
        return query.id.to_bytes(2, "big") + garbage

    assert "asked 3 times" in await failure(answer)


async def test_an_answer_to_another_question_is_not_taken() -> None:
    def forged(query: Query, _: int) -> bytes:
        return txt_answer(Query(query.id ^ 1, *_fields(query)), b"relay=https://evil.example/")

    assert "asked 3 times" in await failure(forged)


def _fields(query: Query) -> tuple[int, tuple[bytes, ...], int, int, bytes]:
    return query.flags, query.name, query.type, query.record_class, query.raw_name


async def test_breaking_off_leaves_nothing_behind() -> None:
    arrived = asyncio.Event()

    def silent(_: Query, __: int) -> None:
        arrived.set()

    async with scripted_dns(silent) as (_, address):
        resolver = DnsResolver(ORIGIN, nameservers=[address])
        lookup = asyncio.ensure_future(resolver.look_up(PEER))
        await arrived.wait()
        before = asyncio.all_tasks() - {lookup}
        lookup.cancel()
        with pytest.raises(asyncio.CancelledError):
            await lookup
        gc.collect()
        assert asyncio.all_tasks() == before


async def test_our_own_server_is_found_through_the_dns() -> None:
    async with dns_server() as server:
        assert server.pkarr_url is not None
        assert server.dns_address is not None
        async with PkarrClient(server.pkarr_url) as client:
            await client.put(PACKET)
        resolver = DnsResolver(ORIGIN, nameservers=[server.dns_address])
        assert await records(resolver) == [RELAY_RECORD]


async def test_a_record_too_large_for_udp_is_fetched_over_tcp() -> None:
    addresses = tuple(SocketAddr(f"2001:db8:1111:2222::{n:x}", 40000) for n in range(1, 32))
    full = packet(record=EndpointRecord((), addresses).fitted())
    async with dns_server() as server:
        assert server.pkarr_url is not None
        assert server.dns_address is not None
        async with PkarrClient(server.pkarr_url) as client:
            await client.put(full)
        server.metrics.dns_requests_tcp = 0
        server._udp._transport.get_protocol()._respond = server._respond_truncated  # type: ignore[union-attr]
        resolver = DnsResolver(ORIGIN, nameservers=[server.dns_address])
        assert await records(resolver) == [full.endpoint_record()]
        assert server.metrics.dns_requests_tcp == 1


async def test_a_record_is_found_at_a_pkarr_server() -> None:
    async with dns_server() as server:
        assert server.pkarr_url is not None
        async with PkarrClient(server.pkarr_url) as client:
            resolver = PkarrResolver(client)
            with pytest.raises(PeerNotFoundError, match="has no record"):
                await records(resolver)
            await client.put(PACKET)
            assert await records(resolver) == [RELAY_RECORD]
            await client.put(packet(record=EndpointRecord(), timestamp=PACKET.timestamp + 1))
            with pytest.raises(PeerNotFoundError, match="connected to no relay"):
                await records(resolver)


async def test_a_pkarr_server_that_is_not_there_is_a_peer_not_found() -> None:
    async with dns_server() as server:
        url = server.pkarr_url
    assert url is not None
    async with PkarrClient(url) as client:
        with pytest.raises(PeerNotFoundError, match=r"look-up failed: .*refused"):
            await records(PkarrResolver(client))


async def test_the_settings_choose_the_resolver() -> None:
    assert make_resolver(DiscoverySettings(), None) is None
    dns = make_resolver(DiscoverySettings(dns_origin=ORIGIN), None)
    assert isinstance(dns, DnsResolver)
    with pytest.raises(ValueError):
        make_resolver(DiscoverySettings(resolve_url="https://x/pkarr"), None)
    async with PkarrClient("https://x/pkarr") as client:
        own = make_resolver(DiscoverySettings(resolve_url="https://x/pkarr"), client)
        assert isinstance(own, PkarrResolver)


@pytest.mark.parametrize(("servers", "seconds"), [(1, 3.0), (2, 1.5), (3, 1.0), (9, 1.0)])
async def test_each_server_has_its_share_of_the_time_and_a_second_at_least(
    servers: int, seconds: float
) -> None:
    """A lone server that takes two seconds to answer is waited for."""
    nameservers = [SocketAddr("127.0.0.1", 5300 + number) for number in range(servers)]
    resolver = DnsResolver("dns.example", nameservers=nameservers)
    assert await resolver._server_timeout() == seconds


@pytest.fixture
def unmarked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Setting a mark takes privileges."""
    monkeypatch.setattr(marked_dns, "set_mark", lambda sock, mark: None)


def marked_resolver(address: SocketAddr, timeout: float = 5.0) -> MarkedDnsResolver:
    servers = (address.ip,)
    dns = MarkedDns(7, servers=lambda: servers, port=address.port, timeout=timeout)
    return MarkedDnsResolver(ORIGIN, dns)


@pytest.mark.usefixtures("unmarked")
async def test_with_a_mark_the_dns_is_asked_the_same_question() -> None:
    script: Script = lambda query, _: txt_answer(query, RELAY, b"addr=10.0.0.1:7")  # noqa: E731
    async with scripted_dns(script) as (server, address):
        found = await records(marked_resolver(address))
    assert found == [EndpointRecord(("https://relay.example/",), (SocketAddr("10.0.0.1", 7),))]
    [query] = server.queries
    assert (query.type, query.name[:2]) == (RecordType.TXT, (b"_iroh", PEER.z32.encode()))


@pytest.mark.usefixtures("unmarked")
@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (lambda query, _: no_such_name(query), "no record of"),
        (lambda query, _: txt_answer(query, b"user-data=x"), "no record of"),
        (lambda query, _: None, "no DNS server answered"),
    ],
)
async def test_with_a_mark_failures_are_told_the_same_way(script: Script, reason: str) -> None:
    async with scripted_dns(script) as (_, address):
        with pytest.raises(PeerNotFoundError, match=reason):
            await records(marked_resolver(address, 0.1))


async def test_a_mark_makes_the_resolver_a_marked_one() -> None:
    settings = DiscoverySettings(dns_origin=ORIGIN)
    assert isinstance(make_resolver(settings, None, 7), MarkedDnsResolver)
    assert isinstance(make_resolver(settings, None), DnsResolver)
