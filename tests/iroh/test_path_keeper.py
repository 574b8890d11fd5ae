"""When other paths are looked for, and which: on a clock that jumps, with a connection that is as
the test says."""

import asyncio
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tests.support.virtual_time import virtual_time

from tunnel_rs.iroh import path_keeper as module
from tunnel_rs.iroh.path_keeper import (
    CHECK_IDLE,
    MAX_KNOWN,
    SETTLED,
    SPARE_AFTER,
    SPARE_AGAIN,
    SPARE_TIME,
    UPGRADE_EVERY,
    UPGRADE_TIME,
    PathKeeper,
)
from tunnel_rs.iroh.redial import Redial
from tunnel_rs.iroh.ways import Cancel, OnFound
from tunnel_rs.net.quic import QuicEndpoint
from tunnel_rs.net.quic_connection import QuicConnection
from tunnel_rs.proto.engine import Address
from tunnel_rs.proto.relay_addr import RelayAddr
from tunnel_rs.reports import PathChanged, Report
from tunnel_rs.values import EndpointId

PEER = EndpointId(bytes([7]) * 32)
HOME, NEXT = RelayAddr("https://a.example/", PEER), RelayAddr("https://b.example/", PEER)
LAN: Address = ("192.0.2.7", 4433)
FAR: Address = ("198.51.100.9", 4433)


class Engine:
    """As much of an engine as is looked at."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.path_is_down = self.is_closing = False
        self.is_multipath = self.has_nat_traversal = False
        self.silent_since: float | None = None
        self.stopped = self.looks = 0
        self.open: list[Address] = []

    def silent_for(self, now: float) -> float:
        self.looks += 1
        return 0.0 if self.silent_since is None else now - self.silent_since

    def stop_probing(self) -> None:
        self.stopped += 1

    def paths(self, now: float) -> list[Any]:
        return [SimpleNamespace(address=each, is_validated=True) for each in self.open]


class FakeRedial:
    """Whether a handshake is tried beside the connection."""

    def __init__(self) -> None:
        self.is_running = False

    def start(self) -> None:
        self.is_running = True

    def cancel(self) -> None:
        self.is_running = False


class Scene:
    """A connection, an endpoint that notes what is asked, and ways that find `finds`."""

    def __init__(self, address: Address, *known: Address, **options: Any) -> None:
        self.engine = Engine(address)
        self.redial = FakeRedial()
        self.path_changes = 0
        self.asked: list[tuple[float, Address]] = []
        self.flushes = 0
        self.can_ask = True
        self.finds: list[Address] = []
        self.searches = self.cancelled = 0
        self.reports: list[Report] = []
        self.keeper = PathKeeper(
            cast(QuicEndpoint, self),
            cast(QuicConnection, self),
            PEER,
            [self],
            self.reports.append,
            known,
            cast(Redial, self.redial),
            on_path=self._path_changed,
            **options,
        )

    def _path_changed(self) -> None:
        self.path_changes += 1

    # The endpoint
    def probe(self, connection: Any, address: Address) -> bool:
        assert connection is self
        if self.can_ask:
            self.asked.append((now(), address))
        return self.can_ask

    # The connection
    address = "https://a.example/"

    @staticmethod
    def on_unanswered() -> None: ...

    def text_of(self, address: Address) -> str:
        return f"text of {address}"

    def schedule_flush(self) -> None:
        self.flushes += 1

    # A way
    name, problem, keeps_looking = "way", "", True

    def find(self, peer: EndpointId, on_found: OnFound) -> Cancel:
        assert peer == PEER
        self.searches += 1
        for address in self.finds:
            on_found(address, f"found {address}")

        def cancel() -> None:
            self.cancelled += 1

        return cancel

    def took(self, since: int = 0) -> set[Address]:
        return {address for _, address in self.asked[since:]}


class SpareWay:
    """A way that finds relays."""

    name, problem, keeps_looking = "spare", "", True

    def __init__(self, finds: Sequence[Address]) -> None:
        self._finds = finds

    def find(self, peer: EndpointId, on_found: OnFound) -> Cancel:
        for address in self._finds:
            on_found(address, f"found {address}")
        return lambda: None


def now() -> float:
    return asyncio.get_running_loop().time()


def in_scene(
    test: Callable[[Scene], Any],
    address: Address,
    *known: Address,
    finds: Sequence[Address] = (),
    spares: Sequence[Address] | None = None,
    direct_only: bool = False,
) -> None:
    """Run `test` with a keeper that has been started, on virtual time. `spares`: what the ways to
    spare paths find; None: there are none."""

    @virtual_time
    async def run() -> None:
        ways = [] if spares is None else [SpareWay(spares)]
        scene = Scene(address, *known, direct_only=direct_only, spare_ways=ways)
        scene.finds.extend(finds)
        scene.keeper.start()
        try:
            await test(scene)
        finally:
            scene.keeper.stop()
            scene.keeper.stop()
        asked = len(scene.asked)
        await asyncio.sleep(100)
        assert len(scene.asked) == asked and scene.searches == scene.cancelled
        assert not scene.keeper.is_running

    run()


def test_a_direct_path_that_works_is_left_alone() -> None:
    async def test(scene: Scene) -> None:
        await asyncio.sleep(300)
        assert (scene.asked, scene.searches) == ([], 0)

    in_scene(test, LAN, FAR, HOME)


def test_a_direct_connection_gets_a_spare_over_a_relay() -> None:
    async def test(scene: Scene) -> None:
        scene.engine.is_multipath = True
        began = now()
        await asyncio.sleep(SPARE_AFTER + 0.1)
        assert set(scene.asked) == {(began + SPARE_AFTER, HOME)}
        scene.engine.open = [LAN, HOME]
        scene.asked.clear()
        await asyncio.sleep(600)
        assert scene.asked == []
        scene.engine.open = [LAN]
        await asyncio.sleep(CHECK_IDLE + 0.1)
        assert scene.took() == {HOME}
        assert scene.searches == 0  # the other ways

    in_scene(test, LAN, FAR, spares=[HOME, FAR])


def test_a_spare_that_cannot_be_had_is_looked_for_less_and_less_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "SPARE_AGAIN_LIMIT", 2.5 * SPARE_AGAIN)

    async def test(scene: Scene) -> None:
        scene.engine.is_multipath = True
        began = now()
        await asyncio.sleep(600)
        times = [time - began for time, _ in scene.asked]
        starts = [b for a, b in zip([-99.0, *times], times, strict=False) if b - a > 5.0]
        gaps = [round(b - a) for a, b in zip(starts, starts[1:], strict=False)]
        assert gaps == [SPARE_TIME + SPARE_AGAIN * factor for factor in (1, 2, 2.5, 2.5)]
        scene.keeper.network_changed()
        count = len(scene.asked)
        await asyncio.sleep(SPARE_AFTER + 0.6)
        assert len(scene.asked) > count

    in_scene(test, LAN, spares=[HOME])


@pytest.mark.parametrize(
    ("at", "is_multipath", "spares"),
    [(HOME, True, [NEXT]), (LAN, False, [HOME]), (LAN, True, None)],
    ids=["on a relay", "a peer without paths", "no relay to be had"],
)
def test_no_spare_is_looked_for_in_vain(
    at: Address, is_multipath: bool, spares: Sequence[Address] | None
) -> None:
    async def test(scene: Scene) -> None:
        scene.engine.is_multipath = scene.engine.has_nat_traversal = is_multipath
        await asyncio.sleep(300)
        assert scene.asked == []

    in_scene(test, at, HOME, spares=spares)


def test_a_path_that_falls_silent_makes_every_address_be_asked_again_and_again() -> None:
    async def test(scene: Scene) -> None:
        scene.finds = [NEXT]
        scene.engine.silent_since = now()
        await asyncio.sleep(1.9)
        assert scene.searches == 0
        await asyncio.sleep(1.0)
        assert scene.took() == {FAR, HOME, NEXT}
        await asyncio.sleep(3)
        times = [time for time, address in scene.asked if address == FAR]
        assert len(times) == 4
        assert {round(b - a, 1) for a, b in zip(times, times[1:], strict=False)} == {1.0}

    in_scene(test, LAN, FAR, HOME)


def test_relays_are_asked_before_addresses() -> None:
    async def test(scene: Scene) -> None:
        scene.engine.path_is_down = True
        await asyncio.sleep(0.6)
        assert [address for _, address in scene.asked[:3]] == [HOME, NEXT, FAR]

    in_scene(test, LAN, FAR, HOME, NEXT)


def test_while_there_is_no_path_the_ways_are_asked_every_five_seconds() -> None:
    async def test(scene: Scene) -> None:
        scene.engine.path_is_down = True
        await asyncio.sleep(4)
        assert scene.searches == 1
        scene.finds = [NEXT]
        await asyncio.sleep(2)
        assert scene.searches == 2 and scene.cancelled == 1
        assert NEXT in scene.took()

    in_scene(test, LAN)


def test_when_the_peer_is_heard_again_the_search_ends() -> None:
    async def test(scene: Scene) -> None:
        scene.engine.silent_since = now()
        await asyncio.sleep(3)
        scene.engine.silent_since = None
        await asyncio.sleep(0.6)
        assert (scene.searches, scene.cancelled, scene.engine.stopped) == (1, 1, 1)
        asked = len(scene.asked)
        await asyncio.sleep(20)
        assert len(scene.asked) == asked

    in_scene(test, LAN, FAR)


def test_a_move_is_told_and_ends_the_search() -> None:
    async def test(scene: Scene) -> None:
        scene.engine.path_is_down = True
        await asyncio.sleep(1)
        scene.engine.address, scene.engine.path_is_down = FAR, False
        await asyncio.sleep(1)
        before, after = f"direct text of {LAN}", f"direct text of {FAR}"
        assert scene.reports == [PathChanged(after, None, before)]
        assert scene.path_changes == 1
        assert scene.searches == scene.cancelled == 1

    in_scene(test, LAN, FAR)


def test_on_a_relay_a_direct_path_is_looked_for_a_while_now_and_then() -> None:
    async def test(scene: Scene) -> None:
        await asyncio.sleep(UPGRADE_TIME + 1)
        assert scene.took() == {LAN, FAR}, "another relay is no better"
        assert (scene.searches, scene.cancelled) == (1, 1)
        asked = len(scene.asked)
        await asyncio.sleep(UPGRADE_EVERY - UPGRADE_TIME - 2)
        assert len(scene.asked) == asked
        await asyncio.sleep(3)
        assert scene.took(asked) == {LAN, FAR} and scene.searches == 2

    in_scene(test, HOME, FAR, finds=[LAN, NEXT])


def test_having_left_the_relay_nothing_more_is_looked_for() -> None:
    async def test(scene: Scene) -> None:
        await asyncio.sleep(1)
        scene.engine.address = FAR
        await asyncio.sleep(1)
        asked = len(scene.asked)
        await asyncio.sleep(3 * UPGRADE_EVERY)
        assert len(scene.asked) == asked and scene.searches == 1

    in_scene(test, HOME, FAR)


def test_having_come_to_a_relay_a_direct_path_is_looked_for_at_once() -> None:
    async def test(scene: Scene) -> None:
        await asyncio.sleep(35)
        scene.engine.address = HOME
        scene.keeper.wake()
        assert scene.took() == {FAR}

    in_scene(test, LAN, FAR)


def test_an_address_that_could_not_be_asked_is_asked_at_the_next_look() -> None:
    async def test(scene: Scene) -> None:
        scene.can_ask = False
        await asyncio.sleep(0.2)
        scene.can_ask = True
        await asyncio.sleep(0.5)
        assert scene.took() == {FAR}

    in_scene(test, HOME, FAR)


def test_a_network_cannot_make_us_remember_more_and_more() -> None:
    async def test(scene: Scene) -> None:
        await asyncio.sleep(1)
        assert len(scene.keeper._known) == MAX_KNOWN

    in_scene(test, HOME, finds=[("192.0.2.1", port) for port in range(1, 500)])


def test_with_the_connection_the_watch_ends() -> None:
    async def test(scene: Scene) -> None:
        await asyncio.sleep(1)
        assert scene.keeper.is_running
        scene.engine.is_closing = True
        await asyncio.sleep(1)
        assert not scene.keeper.is_running

    in_scene(test, HOME, FAR)


def test_of_several_paths_a_change_is_not_told_twice() -> None:
    async def test(scene: Scene) -> None:
        scene.engine.is_multipath = True
        scene.engine.address = FAR
        await asyncio.sleep(1)
        assert scene.reports == []
        assert scene.path_changes == 1

    in_scene(test, LAN)


def test_where_the_engine_punches_holes_nothing_else_is_tried_from_a_relay() -> None:
    async def test(scene: Scene) -> None:
        scene.engine.has_nat_traversal = True
        asked = len(scene.asked)
        await asyncio.sleep(100)
        assert len(scene.asked) == asked

    in_scene(test, HOME, LAN)


def test_a_server_silent_for_long_is_dialled_anew_until_it_is_heard() -> None:
    async def test(scene: Scene) -> None:
        scene.engine.silent_since = now()
        await asyncio.sleep(9)
        assert not scene.redial.is_running
        await asyncio.sleep(2)
        assert scene.redial.is_running
        scene.engine.silent_since = None
        await asyncio.sleep(1)
        assert not scene.redial.is_running

    in_scene(test, LAN)


def test_while_our_own_network_is_away_the_server_is_not_blamed() -> None:
    async def test(scene: Scene) -> None:
        scene.engine.silent_since = now()
        scene.engine.path_is_down = True
        await asyncio.sleep(60)
        assert not scene.redial.is_running

    in_scene(test, HOME)


def test_with_direct_only_no_relay_is_gone_to() -> None:
    async def test(scene: Scene) -> None:
        scene.engine.silent_since = now()
        await asyncio.sleep(20)
        assert scene.took() == {FAR}

    in_scene(test, LAN, FAR, HOME, direct_only=True)


def test_an_idle_connection_is_looked_at_rarely() -> None:
    async def test(scene: Scene) -> None:
        await asyncio.sleep(SETTLED + 1)
        looks = scene.engine.looks
        await asyncio.sleep(20 * CHECK_IDLE)
        assert scene.engine.looks - looks <= 21

    in_scene(test, LAN, FAR)
    in_scene(test, LAN)


def test_an_idle_connection_that_gets_no_answer_is_looked_at_closely_at_once() -> None:
    async def test(scene: Scene) -> None:
        await asyncio.sleep(60)
        asked_at = scene.engine.silent_since = now()
        await asyncio.sleep(0.3)  # until a first timer has run out
        scene.on_unanswered()
        await asyncio.sleep(3)
        assert scene.took() == {FAR, HOME} and scene.asked[0][0] - asked_at <= 2.5
        scene.engine.silent_since = None
        await asyncio.sleep(1)
        looks = scene.engine.looks
        scene.on_unanswered()
        await asyncio.sleep(4)
        assert scene.engine.looks - looks <= 2, "idle again"

    in_scene(test, LAN, FAR, HOME)


def test_an_idle_connection_whose_path_is_lost_looks_for_another_at_once() -> None:
    async def test(scene: Scene) -> None:
        await asyncio.sleep(60)
        scene.engine.path_is_down = True
        scene.on_unanswered()
        assert scene.took() == {FAR, HOME}

    in_scene(test, LAN, FAR, HOME)


def test_a_call_after_the_end_does_nothing() -> None:
    async def test(scene: Scene) -> None:
        scene.keeper.stop()
        scene.engine.path_is_down = True
        scene.keeper.wake()
        scene.on_unanswered()
        scene.keeper.network_changed()
        assert scene.asked == []

    in_scene(test, LAN, FAR)


def test_when_the_network_changes_the_search_begins_anew() -> None:
    async def test(scene: Scene) -> None:
        scene.engine.silent_since = now()
        await asyncio.sleep(5.9)
        searches = scene.searches
        scene.keeper.network_changed()
        await asyncio.sleep(0.6)
        assert scene.searches == searches + 1

    in_scene(test, LAN, FAR)
