"""Tests of `tunnel_rs.iroh.path_steering`: on a clock that jumps, with paths as the test says."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

from tests.support.virtual_time import virtual_time

from tunnel_rs.iroh.path_steering import MEASURE_AGAIN, PathSteering
from tunnel_rs.net.quic_connection import QuicConnection
from tunnel_rs.proto.engine import Address
from tunnel_rs.proto.path_choice import FIRST_PENALTY
from tunnel_rs.proto.path_state import PathState
from tunnel_rs.proto.relay_addr import RelayAddr
from tunnel_rs.reports import PathChanged, PathSeen, PathsSeen, Report
from tunnel_rs.values import EndpointId

PEER = EndpointId(bytes([7]) * 32)
RELAY = RelayAddr("https://a.example/", PEER)
FAR: Address = ("198.51.100.9", 4433)
LAN: Address = ("192.0.2.7", 4433)


def path(number: int, address: Address, **options: Any) -> PathState:
    given: dict[str, Any] = {
        "is_validated": True,
        "is_available": True,
        "peer_wants": True,
        "is_data": False,
        "rtt": 0.02,
        "smoothed_rtt": 0.5,
        "mtu": 1200,
        "ptos": 0,
        "silent_for": 0.0,
        "bytes_sent": 0,
        "bytes_received": 0,
    }
    return PathState(id=number, address=address, **given | options)


class Scene:
    """A connection whose paths the test sets, and which does what it is told."""

    def __init__(self, *paths: PathState, is_client: bool = True, **options: Any) -> None:
        self.all = list(paths)
        self.is_client = is_client
        self.is_closing = False
        self.selected: list[int] = []
        self.abandoned: list[int] = []
        self.challenged: list[int] = []
        self.reports: list[Report] = []
        self.moves = self.flushes = 0
        self.on_paths_changed: Callable[[], None] = lambda: None
        self.on_path_failed: Callable[[Address], None] = lambda _: None
        self.on_peer_moved: Callable[[], None] = lambda: None
        self.steering = PathSteering(
            cast(QuicConnection, self), self.reports.append, on_path=self._moved, **options
        )
        self.steering.start()

    def _moved(self) -> None:
        self.moves += 1

    # The connection and its engine

    @property
    def engine(self) -> "Scene":
        return self

    @property
    def address(self) -> Address:
        return next(each.address for each in self.all if each.is_data)

    def text_of(self, address: Address) -> str:
        return address.url if isinstance(address, RelayAddr) else str(address)

    def schedule_flush(self) -> None:
        self.flushes += 1

    def paths(self, now: float) -> list[PathState]:
        return self.all

    def select_path(self, number: int) -> None:
        self.selected.append(number)
        self.all = [replace(each, is_data=each.id == number) for each in self.all]

    def abandon_path(self, number: int, now: float) -> None:
        self.abandoned.append(number)
        self.all = [each for each in self.all if each.id != number]

    def challenge(self, number: int, now: float) -> None:
        self.challenged.append(number)

    # What the network does

    def now_has(self, *paths: PathState) -> None:
        self.all = list(paths)
        self.on_paths_changed()


def told(scene: Scene) -> list[PathChanged]:
    return [each for each in scene.reports if isinstance(each, PathChanged)]


@virtual_time
async def test_data_goes_to_a_direct_path_as_soon_as_there_is_one_and_that_is_told() -> None:
    scene = Scene(path(0, RELAY, is_data=True))
    assert scene.reports == []
    scene.now_has(path(0, RELAY, is_data=True), path(1, FAR, is_validated=False))
    assert scene.selected == []
    scene.now_has(path(0, RELAY, is_data=True), path(1, FAR, rtt=0.012))
    assert scene.selected == [1]
    assert scene.moves == 1
    assert told(scene) == [
        PathChanged(f"direct {FAR}", 0.012, "relay https://a.example/"),
    ]
    scene.steering.stop()


@virtual_time
async def test_all_paths_are_told_when_they_are_others_than_before() -> None:
    scene = Scene(path(0, RELAY, is_data=True), peer=PEER)
    scene.now_has(path(0, RELAY, is_data=True), path(1, FAR, is_validated=False))
    scene.on_paths_changed()
    relay = "relay https://a.example/"
    assert scene.reports == [
        PathsSeen((PathSeen(relay, "in use"), PathSeen(f"direct {FAR}", "being tried")), PEER)
    ]
    scene.now_has(path(0, RELAY, is_data=True), path(1, FAR))
    assert scene.reports[-1] == PathsSeen(
        (PathSeen(relay, "spare"), PathSeen(f"direct {FAR}", "in use")), PEER
    )
    scene.steering.stop()


@virtual_time
async def test_a_client_closes_what_it_does_not_need() -> None:
    scene = Scene(path(1, LAN, rtt=0.001, is_data=True), path(2, FAR))
    assert scene.abandoned == [2]
    scene.steering.stop()


@virtual_time
async def test_a_server_closes_nothing() -> None:
    scene = Scene(path(1, LAN, rtt=0.001, is_data=True), path(2, FAR), is_client=False)
    assert scene.abandoned == []
    scene.steering.stop()


@virtual_time
async def test_an_unknown_round_trip_is_measured_but_not_all_the_time() -> None:
    scene = Scene(path(1, LAN, rtt=None, is_data=True))
    for _ in range(5):
        scene.on_paths_changed()
    assert scene.challenged == [1]
    await asyncio.sleep(MEASURE_AGAIN)
    scene.on_paths_changed()
    assert scene.challenged == [1, 1]
    scene.steering.stop()


@virtual_time
async def test_a_path_that_failed_is_used_again_after_a_while_without_another_reason() -> None:
    scene = Scene(path(1, FAR, is_data=True))
    scene.on_path_failed(FAR)
    scene.now_has(path(0, RELAY, is_data=True), path(2, FAR))
    assert scene.selected == []
    await asyncio.sleep(FIRST_PENALTY + 0.1)
    assert scene.selected == [2]
    scene.steering.stop()


@virtual_time
async def test_a_direct_path_that_failed_is_told_and_a_relay_is_not() -> None:
    failed: list[bool] = []
    scene = Scene(path(1, FAR, is_data=True), on_direct_failed=lambda: failed.append(True))
    scene.on_path_failed(RELAY)
    assert failed == []
    scene.on_path_failed(FAR)
    assert failed == [True]
    scene.steering.stop()


@virtual_time
async def test_a_changed_network_forgives_at_the_next_look() -> None:
    scene = Scene(path(1, FAR, is_data=True))
    scene.on_path_failed(FAR)
    scene.steering.network_changed()
    scene.now_has(path(0, RELAY, is_data=True), path(2, FAR))
    assert scene.selected == [2]
    scene.steering.stop()


@virtual_time
async def test_a_peer_that_has_moved_is_forgiven() -> None:
    scene = Scene(path(0, RELAY, is_data=True), path(1, FAR))
    scene.on_path_failed(FAR)
    scene.now_has(path(0, RELAY, is_data=True), path(2, FAR))
    scene.selected.clear()
    scene.on_peer_moved()
    scene.on_paths_changed()
    assert scene.selected == [2]
    scene.steering.stop()


@virtual_time
async def test_with_direct_only_the_relay_is_left() -> None:
    scene = Scene(path(0, RELAY, is_data=True), path(1, FAR), direct_only=True)
    assert scene.selected == [1]
    assert scene.abandoned == [0]
    scene.steering.stop()


@virtual_time
async def test_with_the_connection_it_ends() -> None:
    scene = Scene(path(0, RELAY, is_data=True))
    scene.is_closing = True
    scene.now_has(path(0, RELAY, is_data=True), path(1, FAR))
    assert scene.selected == []
    scene.steering.stop()
