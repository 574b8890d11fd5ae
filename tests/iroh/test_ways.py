"""Tests of `tunnel_rs.iroh.ways`."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import cast

from tests.support.virtual_time import virtual_time

from tunnel_rs.errors import PeerNotFoundError, TunnelError
from tunnel_rs.iroh.lan import LanDiscovery, LanLookup
from tunnel_rs.iroh.ways import Discovery, GivenAddresses, Lan, Relays, Way
from tunnel_rs.net.tasks import TaskScope
from tunnel_rs.proto.pkarr import EndpointRecord
from tunnel_rs.proto.relay_addr import RelayAddr
from tunnel_rs.values import EndpointId, SocketAddr

PEER = EndpointId.parse("197f6b23e16c8532c6abc838facd5ea789be0c76b2920334039bfa8b3d368d61")
V4, V6 = SocketAddr("192.0.2.7", 4444), SocketAddr("2001:db8::7", 4444)


class FakeLan:
    def __init__(self) -> None:
        self.asked: list[EndpointId] = []
        self.cancelled = 0
        self.on_found: Callable[[SocketAddr], None]

    def lookup(self, peer: EndpointId, on_found: Callable[[SocketAddr], None]) -> LanLookup:
        self.asked.append(peer)
        self.on_found = on_found
        return LanLookup(self._cancel)

    def _cancel(self) -> None:
        self.cancelled += 1


def test_given_addresses_are_found_at_once_and_that_is_all() -> None:
    found: list[tuple[object, str]] = []
    way: Way = GivenAddresses([V4, V6])
    cancel = way.find(PEER, lambda address, text: found.append((address, text)))
    assert found == [
        (("192.0.2.7", 4444), "192.0.2.7:4444"),
        (("2001:db8::7", 4444, 0, 0), "[2001:db8::7]:4444"),
    ]
    assert not way.keeps_looking
    cancel()
    assert way.name == "given addresses"


def test_the_lan_is_asked_until_cancelled_and_its_addresses_are_marked() -> None:
    found: list[tuple[object, str]] = []
    lan = FakeLan()
    way: Way = Lan(cast(LanDiscovery, lan))
    cancel = way.find(PEER, lambda address, text: found.append((address, text)))
    assert (lan.asked, found) == ([PEER], [])
    lan.on_found(V6)
    assert found == [(("2001:db8::7", 4444, 0, 0), "[2001:db8::7]:4444 (LAN)")]
    assert way.keeps_looking
    assert way.name == "LAN"
    cancel()
    assert lan.cancelled == 1


# Relays and discovery

RELAY = "https://relay.example/"


class Records:
    """A resolver that gives what the test puts, and then fails with `error` if there is one."""

    def __init__(self, *records: EndpointRecord, error: TunnelError | None = None) -> None:
        self._records, self._error = records, error
        self.go_on = asyncio.Event()
        self.ended = False

    async def resolve(self, peer: EndpointId) -> AsyncIterator[EndpointRecord]:
        assert peer == PEER
        try:
            await self.go_on.wait()
            for record in self._records:
                yield record
            if self._error is not None:
                raise self._error
        finally:
            self.ended = True


class Found(list[tuple[object, str]]):
    def __call__(self, address: object, text: str) -> None:
        self.append((address, text))


@virtual_time
async def test_given_relays_are_asked_for_the_peer_at_once() -> None:
    way: Way = Relays([RELAY, "http://b.example/"])
    found = Found()
    way.find(PEER, found)()
    assert found == [
        (RelayAddr(RELAY, PEER), f"relay {RELAY}"),
        (RelayAddr("http://b.example/", PEER), "relay http://b.example/"),
    ]
    assert not way.keeps_looking


@virtual_time
async def test_public_relays_leave_the_others_a_head_start() -> None:
    way: Way = Relays([RELAY], 1.5)
    assert way.keeps_looking
    found, cancelled = Found(), Found()
    way.find(PEER, cancelled)()
    way.find(PEER, found)
    await asyncio.sleep(1.4)
    assert not found
    await asyncio.sleep(0.2)
    assert [text for _, text in found] == [f"relay {RELAY}"]
    assert not cancelled


@virtual_time
async def test_what_a_record_names_is_found_and_marked() -> None:
    records = Records(EndpointRecord((RELAY,), (V4, V6)), EndpointRecord((), (V4,)))
    found = Found()
    async with TaskScope("test") as tasks:
        way: Way = Discovery("dns.example", records, tasks)
        way.find(PEER, found)
        assert (way.problem, way.keeps_looking) == ("no answer so far", True)
        records.go_on.set()
        await tasks.join()
    assert found == [
        (("192.0.2.7", 4444), "192.0.2.7:4444 (dns.example)"),
        (("2001:db8::7", 4444, 0, 0), "[2001:db8::7]:4444 (dns.example)"),
        (RelayAddr(RELAY, PEER), f"relay {RELAY}"),
        (("192.0.2.7", 4444), "192.0.2.7:4444 (dns.example)"),
    ]
    assert way.problem == ""


@virtual_time
async def test_without_relays_a_record_that_names_only_relays_is_of_no_use() -> None:
    records, found = Records(EndpointRecord((RELAY,))), Found()
    records.go_on.set()
    async with TaskScope("test") as tasks:
        way: Way = Discovery("dns.example", records, tasks, relays=False)
        way.find(PEER, found)
        await tasks.join()
    assert not found and way.problem.endswith("relays are turned off")


@virtual_time
async def test_why_a_look_up_found_nothing_is_remembered() -> None:
    records = Records(error=PeerNotFoundError("no such name"))
    records.go_on.set()
    async with TaskScope("test") as tasks:
        way: Way = Discovery("dns.example", records, tasks)
        way.find(PEER, Found())
        await tasks.join()
        assert way.problem == "no such name"


@virtual_time
async def test_a_look_up_that_is_cancelled_finds_nothing_more() -> None:
    records, found = Records(EndpointRecord((RELAY,))), Found()
    async with TaskScope("test") as tasks:
        cancel = Discovery("dns.example", records, tasks).find(PEER, found)
        await asyncio.sleep(1)
        cancel()
        await tasks.join()
    assert records.ended and not found


@virtual_time
async def test_too_many_look_ups_are_a_problem_and_no_error() -> None:
    tasks = TaskScope("test")
    await tasks.aclose()
    way: Way = Discovery("dns.example", Records(), tasks)
    way.find(PEER, Found())()
    assert "is closed" in way.problem
