"""Tests of `tunnel_rs.proto.path_choice`."""

from collections.abc import Hashable
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.memory_link import CLIENT_ID

from tunnel_rs.proto.path_choice import (
    FIRST_PENALTY,
    LONGEST_PENALTY,
    MAX_FAILURES,
    MAX_PTOS,
    Decision,
    PathChoice,
)
from tunnel_rs.proto.relay_addr import RelayAddr

RELAY = RelayAddr("https://relay.example/", CLIENT_ID)
LAN, MAPPED, IPV6 = ("10.81.2.2", 5), ("198.51.100.22", 5), ("2001:db8::2", 5, 0, 0)


@dataclass(frozen=True)
class Path:
    id: int
    address: Hashable
    rtt: float | None = 0.02
    is_data: bool = False
    is_validated: bool = True
    peer_wants: bool = True
    ptos: int = 0


def decide(*paths: Path, is_client: bool = True, direct_only: bool = False) -> Decision:
    return PathChoice(is_client=is_client, direct_only=direct_only).decide(paths, 0.0)


def test_a_direct_path_is_taken_at_once_however_slow_it_is() -> None:
    relay, direct = Path(0, RELAY, 0.001, is_data=True), Path(1, MAPPED, 0.3)
    assert decide(relay, direct) == Decision(select=1)


def test_a_path_that_is_not_validated_is_not_taken() -> None:
    relay, direct = Path(0, RELAY, is_data=True), Path(1, MAPPED, is_validated=False)
    assert decide(relay, direct) == Decision()


def test_the_relay_is_kept_to_fall_back_to() -> None:
    relay, direct = Path(0, RELAY, 0.001), Path(1, MAPPED, is_data=True)
    assert decide(relay, direct) == Decision()


@pytest.mark.parametrize(("faster", "moves"), [(0.004, False), (0.006, True)])
def test_a_path_of_the_same_kind_must_be_clearly_faster(faster: float, moves: bool) -> None:
    old, new = Path(0, MAPPED, 0.02, is_data=True), Path(1, LAN, 0.02 - faster)
    assert decide(old, new).select == (1 if moves else None)


def test_ipv6_is_taken_before_an_ipv4_path_of_the_same_speed() -> None:
    assert decide(Path(1, LAN, 0.02), Path(2, IPV6, 0.022)).select == 2
    assert decide(Path(1, LAN, 0.02), Path(2, IPV6, 0.024)).select == 1


def test_the_client_closes_other_direct_paths_once_they_are_measured() -> None:
    best, other = Path(1, LAN, 0.001, is_data=True), Path(2, MAPPED, 0.02)
    assert decide(Path(0, RELAY), best, other) == Decision(close=(2,))
    unknown = replace(other, rtt=None)
    assert decide(Path(0, RELAY), best, unknown) == Decision(measure=(2,))


def test_a_path_that_is_not_validated_yet_is_left_to_try() -> None:
    best, other = Path(1, LAN, 0.001, is_data=True), Path(2, MAPPED, None, is_validated=False)
    assert decide(best, other) == Decision()


def test_a_server_closes_nothing() -> None:
    paths = Path(1, LAN, 0.001, is_data=True), Path(2, MAPPED, 0.02)
    assert decide(*paths, is_client=False) == Decision()


def test_a_server_follows_the_client() -> None:
    fast, wanted = Path(1, LAN, 0.001, is_data=True, peer_wants=False), Path(2, MAPPED, 0.05)
    assert decide(fast, wanted, is_client=False).select == 2


def test_a_server_does_not_follow_to_where_nothing_passes() -> None:
    passing, dead = Path(1, LAN, peer_wants=False), Path(2, MAPPED, is_data=True, ptos=MAX_PTOS)
    assert decide(passing, dead, is_client=False).select == 1


def test_a_path_that_passes_nothing_loses_to_a_relay() -> None:
    dead = Path(1, LAN, 0.001, is_data=True, ptos=MAX_PTOS)
    assert decide(Path(0, RELAY, 0.3), dead).select == 0


def test_one_lost_packet_is_no_reason_to_leave_and_one_not_to_come() -> None:
    assert decide(Path(0, RELAY), Path(1, LAN, is_data=True, ptos=1)).select is None
    assert decide(Path(0, RELAY, is_data=True), Path(1, LAN, ptos=1)).select is None


def test_nothing_is_done_when_no_path_passes_anything() -> None:
    assert decide(Path(0, RELAY, is_data=True, ptos=9), Path(1, LAN, ptos=9)) == Decision()


def test_the_path_in_use_is_measured_before_it_is_left_for_its_like() -> None:
    old, new = Path(0, MAPPED, None, is_data=True), Path(1, LAN, 0.001)
    assert decide(old, new) == Decision(measure=(0,))


def test_with_direct_only_the_relay_is_left_when_there_is_a_direct_path() -> None:
    relay, direct = Path(0, RELAY, is_data=True), Path(1, MAPPED, 0.02)
    assert decide(relay, direct, direct_only=True) == Decision(select=1, close=(0,))
    assert decide(relay, direct_only=True) == Decision()


def test_an_address_that_failed_is_not_used_for_a_while() -> None:
    choice = PathChoice(is_client=True)
    paths = Path(0, RELAY, is_data=True), Path(1, LAN)
    choice.failed(LAN, 10.0)
    assert choice.decide(paths, 10.0).select is None
    assert choice.retry_at(10.0) == 10.0 + FIRST_PENALTY
    assert choice.decide(paths, 10.0 + FIRST_PENALTY).select == 1
    assert choice.retry_at(10.0 + FIRST_PENALTY) is None


def test_each_failure_costs_twice_as_much_up_to_a_bound() -> None:
    choice = PathChoice(is_client=True)
    for _ in range(20):
        choice.failed(LAN, 0.0)
    assert choice.retry_at(0.0) == LONGEST_PENALTY


def test_a_failure_of_long_ago_does_not_make_the_next_one_cost_more() -> None:
    choice = PathChoice(is_client=True)
    for _ in range(4):
        choice.failed(LAN, 0.0)
    over = choice.retry_at(0.0)
    assert over == 8 * FIRST_PENALTY
    again = over + LONGEST_PENALTY + 1.0
    choice.failed(LAN, again)
    assert choice.retry_at(again) == again + FIRST_PENALTY


def test_a_changed_network_forgives() -> None:
    choice = PathChoice(is_client=True)
    choice.failed(LAN, 0.0)
    choice.network_changed()
    assert choice.decide([Path(0, RELAY, is_data=True), Path(1, LAN)], 0.0).select == 1


def test_a_relay_is_never_punished() -> None:
    choice = PathChoice(is_client=True)
    choice.failed(RELAY, 0.0)
    assert choice.retry_at(0.0) is None


def test_the_only_way_there_is_stays_in_use_although_it_failed() -> None:
    choice = PathChoice(is_client=True)
    choice.failed(LAN, 0.0)
    assert choice.decide([Path(3, LAN, is_data=True)], 0.0) == Decision()


def test_failures_remembered_are_bounded() -> None:
    choice = PathChoice(is_client=True)
    for port in range(3 * MAX_FAILURES):
        choice.failed(("192.0.2.1", port), 0.0)
    old = Path(1, ("192.0.2.1", 0))
    assert choice.decide([Path(0, RELAY, is_data=True), old], 0.0).select == 1


PATHS = st.lists(
    st.builds(
        Path,
        id=st.integers(0, 9),
        address=st.sampled_from([RELAY, LAN, MAPPED, IPV6]),
        rtt=st.none() | st.floats(0, 3),
        is_validated=st.booleans(),
        peer_wants=st.booleans(),
        ptos=st.integers(0, 4),
    ),
    unique_by=lambda path: path.id,
    max_size=8,
)


@given(PATHS, st.integers(0, 9), st.booleans())
def test_the_choice_comes_to_rest(paths: list[Path], data: int, is_client: bool) -> None:
    choice = PathChoice(is_client=is_client)
    paths = [replace(path, is_data=path.id == data) for path in paths]
    first = choice.decide(paths, 0.0)
    assert first.select not in first.close
    assert set(first.close) <= {path.id for path in paths if path.address != RELAY}
    if first.select is not None:
        data = first.select
    left = [replace(path, is_data=path.id == data) for path in paths if path.id not in first.close]
    assert choice.decide(left, 0.0).select is None
