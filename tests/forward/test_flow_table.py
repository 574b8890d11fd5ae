"""Tests of `tunnel_rs.forward.flow_table`, through a client with a scripted uplink."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.support.memory_link import MemoryLink, link_pair
from tests.support.recorder import Recorder
from tests.support.sockets import until

from tunnel_rs.errors import TargetError, TunnelError
from tunnel_rs.forward import flow_table
from tunnel_rs.forward.dialogue import Dialogue
from tunnel_rs.forward.flow_table import FlowTable
from tunnel_rs.forward.local_tcp import ClientParts
from tunnel_rs.forward.sessions import Sessions
from tunnel_rs.forward.settings import ClientSettings
from tunnel_rs.net.resolver import SystemResolver
from tunnel_rs.net.tasks import TaskScope
from tunnel_rs.proto.udp_frames import DatagramDecoder, encode_datagram
from tunnel_rs.reports import Notice, Report, SessionClosed, SessionOpened, SessionRefused
from tunnel_rs.values import Secret, SourceUrl

SOURCE = SourceUrl.parse("udp://192.0.2.1:53")


class Bench:
    """A table whose streams end in recorders."""

    def __init__(self, tasks: TaskScope, limit: int) -> None:
        self.reports: list[Report] = []
        self.refusal: TunnelError | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.near: MemoryLink
        self.near, self.server = link_pair()
        self.requests = 0
        self.delivered: list[tuple[object, bytes]] = []
        settings = ClientSettings(Secret("iAAAAAAAAAAAAAAAAA"), udp_idle_timeout=60)
        sessions = Sessions(self.reports.append, limit=100)
        uplink: Any = self
        self.parts = ClientParts(
            settings, uplink, sessions, tasks, SystemResolver(), self.reports.append
        )
        self.table = FlowTable(self.parts, limit)

    async def request(self, source: SourceUrl) -> Dialogue:
        self.requests += 1
        await self.gate.wait()
        if self.refusal is not None:
            raise self.refusal
        stream = await self.near.open_stream()
        stream.write(b"")  # shows it to the other end
        return Dialogue(stream)

    async def far(self) -> Recorder:
        return Recorder(await self.server.accept_stream())

    def send(self, key: object, *datagrams: bytes) -> None:
        def deliver(datagram: bytes) -> None:
            self.delivered.append((key, datagram))

        self.table.send(key, SOURCE, datagrams, deliver)

    def reported(self, kind: type[Report]) -> list[Any]:
        return [report for report in self.reports if isinstance(report, kind)]


def frames(recorder: Recorder) -> list[bytes]:
    return DatagramDecoder().feed(bytes(recorder.data))


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with TaskScope("test") as tasks:
        made = Bench(tasks, limit=3)
        yield made
        made.table.close()


async def test_each_key_has_a_stream_and_replies_of_its_own(bench: Bench) -> None:
    bench.send("a", b"from a")
    bench.send("b", b"from b")
    a, b = await bench.far(), await bench.far()
    await until(lambda: frames(a) == [b"from a"] and frames(b) == [b"from b"])
    a.stream.write(encode_datagram(b"to a"))
    b.stream.write(encode_datagram(b"to b"))
    await until(lambda: len(bench.delivered) == 2)
    assert sorted(bench.delivered) == [("a", b"to a"), ("b", b"to b")]
    bench.send("a", b"again")
    await until(lambda: frames(a) == [b"from a", b"again"])
    assert bench.requests == 2
    assert [report.session for report in bench.reported(SessionOpened)] == [1, 2]


async def test_datagrams_wait_for_the_stream_in_order(bench: Bench) -> None:
    bench.gate.clear()
    bench.send("a", b"1", b"2")
    await asyncio.sleep(0)
    bench.send("a", b"3")
    bench.gate.set()
    far = await bench.far()
    await until(lambda: frames(far) == [b"1", b"2", b"3"])
    assert bench.requests == 1


async def test_beyond_the_limit_new_keys_are_dropped_and_it_is_told_once(bench: Bench) -> None:
    for key in "abcdef":
        bench.send(key, b"x")
    assert len(bench.table) == 3
    (notice,) = bench.reported(Notice)
    assert notice.text == "3 UDP flows are open; datagrams of new local peers are dropped"
    far = await bench.far()
    far.stream.write_eof()
    await until(lambda: len(bench.table) == 2)
    bench.send("d", b"x")
    assert len(bench.table) == 3


async def test_a_refused_flow_is_told_and_not_asked_for_again_at_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow_table, "REFUSED_HOLD", 0.02)
    bench.refusal = TargetError("not allowed")
    bench.send("a", b"x")
    await until(lambda: bool(bench.reported(SessionRefused)))
    for _ in range(100):
        bench.send("a", b"x")
    await asyncio.sleep(0)
    assert bench.requests == 1
    assert bench.reported(SessionRefused) == [SessionRefused(str(SOURCE), "not allowed")]
    await until(lambda: len(bench.table) == 0)
    bench.refusal = None
    bench.send("a", b"now")
    await bench.far()
    assert bench.requests == 2


async def test_after_the_link_is_lost_the_next_datagram_opens_a_new_flow(bench: Bench) -> None:
    bench.send("a", b"x")
    await bench.far()
    bench.near.lose("gone")
    await until(lambda: len(bench.table) == 0)
    assert bench.reported(SessionClosed)[0].reason == "gone"
    bench.near, bench.server = link_pair()
    bench.send("a", b"y")
    far = await bench.far()
    await until(lambda: frames(far) == [b"y"])


async def test_closing_ends_all_flows_and_takes_no_new_ones(bench: Bench) -> None:
    bench.send("a", b"x")
    far = await bench.far()
    await until(lambda: len(bench.reported(SessionOpened)) == 1)
    bench.table.close()
    await until(lambda: "eof" in far.events)
    bench.send("b", b"x")
    assert len(bench.table) == 0
    assert len(bench.parts.sessions) == 0


async def test_closing_while_a_flow_opens_leaves_no_stream(bench: Bench) -> None:
    bench.gate.clear()
    bench.send("a", b"x")
    await until(lambda: bench.requests == 1)
    bench.table.close()
    bench.gate.set()
    far = await bench.far()
    await until(lambda: sorted(far.events) == ["reset 0", "stop 0"])
    assert bench.reported(SessionOpened) == []


async def test_a_held_key_is_forgotten_when_the_table_closes(bench: Bench) -> None:
    bench.refusal = TargetError("no")
    bench.send("a", b"x")
    await until(lambda: bool(bench.reported(SessionRefused)))
    bench.table.close()
    assert len(bench.table) == 0


async def test_without_a_task_to_open_it_a_flow_is_dropped(bench: Bench) -> None:
    await bench.parts.tasks.aclose()
    bench.send("a", b"x")
    assert len(bench.table) == 0
    assert len(bench.parts.sessions) == 0
