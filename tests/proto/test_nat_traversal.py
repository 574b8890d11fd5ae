"""Tests of `tunnel_rs.proto.nat_traversal`."""

from collections.abc import Callable, Sequence
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel_rs.errors import ProtocolError
from tunnel_rs.proto.nat_traversal import (
    CHANGE_GAP,
    CHECK_EVERY,
    EAGER_EVERY,
    EAGER_TIME,
    MAX_CANDIDATES,
    PROBE_BURST,
    PROBES_PER_SECOND,
    QUIET_GAP,
    RETRY_GAPS,
    AddAddress,
    ClientRounds,
    Probe,
    ReachOut,
    RemoveAddress,
    ServerRounds,
    may_be_probed,
    shared_budget,
)
from tunnel_rs.proto.token_bucket import TokenBucket
from tunnel_rs.values import SocketAddr

MAPPED, LAN = SocketAddr("198.51.100.21", 4444), SocketAddr("10.81.1.2", 4444)
PEER, PEER_LAN = SocketAddr("198.51.100.22", 5555), SocketAddr("10.81.2.2", 5555)


def numbered() -> Callable[[int], bytes]:
    numbers = count()
    return lambda size: next(numbers).to_bytes(size, "big")


def client(**more: Callable[[SocketAddr], bool]) -> ClientRounds:
    return ClientRounds(numbered(), shared_budget(0.0), 0.0, **more)


def server(limit: int = MAX_CANDIDATES, shared: TokenBucket | None = None) -> ServerRounds:
    return ServerRounds(numbered(), shared or shared_budget(0.0), 0.0, limit=limit)


def where(probes: Sequence[Probe]) -> set[SocketAddr]:
    return {probe.address for probe in probes}


def run(rounds: ClientRounds | ServerRounds, until: float) -> list[tuple[float, Probe]]:
    """Everything that is probed up to a time, driven by the timer alone."""
    sent, now = list[tuple[float, Probe]](), 0.0
    while now <= until:
        rounds.frames(now)
        sent += [(now, probe) for probe in rounds.probes(now)]
        at = rounds.get_timer()
        if at is None:
            break
        assert at > now - 1e-9, "a timer in the past makes a busy loop"
        now = max(now + 1e-6, at)
    return sent


def test_a_round_names_our_candidates_and_probes_those_of_the_server() -> None:
    rounds = client()
    rounds.set_own([MAPPED, LAN], 0.0)
    rounds.address_added(AddAddress(0, PEER), 0.0)
    rounds.address_added(AddAddress(1, PEER_LAN), 0.0)
    assert rounds.frames(0.0) == [ReachOut(1, MAPPED), ReachOut(1, LAN)]
    assert where(rounds.probes(0.0)) == {PEER, PEER_LAN}


def test_the_server_tells_its_candidates_and_takes_back_those_that_go() -> None:
    rounds = server()
    rounds.set_own([PEER, PEER_LAN, PEER], 0.0)
    assert rounds.frames(0.0) == [AddAddress(0, PEER), AddAddress(1, PEER_LAN)]
    rounds.set_own([PEER_LAN, MAPPED], 1.0)
    assert rounds.frames(1.0) == [RemoveAddress(0), AddAddress(2, MAPPED)]
    rounds.set_own([PEER_LAN, MAPPED], 2.0)
    assert rounds.frames(2.0) == []


def test_the_server_tells_no_more_than_the_client_takes() -> None:
    rounds = server(limit=1)
    rounds.set_own([PEER, PEER_LAN], 0.0)
    assert rounds.frames(0.0) == [AddAddress(0, PEER)]


def test_the_server_probes_what_the_client_names() -> None:
    rounds = server()
    rounds.reach_out(ReachOut(1, MAPPED), 0.0)
    rounds.reach_out(ReachOut(1, LAN), 0.0)
    rounds.reach_out(ReachOut(1, MAPPED), 0.0)
    assert [probe.address for probe in rounds.probes(0.0)] == [MAPPED, LAN]


def test_an_address_is_probed_nine_times_in_the_gaps_of_the_schedule() -> None:
    rounds = server()
    rounds.reach_out(ReachOut(1, MAPPED), 0.0)
    sent = run(rounds, 30.0)
    times = [at for at, _ in sent]
    assert len(times) == 9
    assert sum(RETRY_GAPS) == pytest.approx(4.131)
    gaps = [later - earlier for earlier, later in zip(times, times[1:], strict=False)]
    assert gaps == pytest.approx(RETRY_GAPS)
    assert len({probe.token for _, probe in sent}) == 9


def test_an_answer_needs_the_token_and_the_source_it_was_sent_to() -> None:
    rounds = server()
    rounds.reach_out(ReachOut(1, MAPPED), 0.0)
    rounds.reach_out(ReachOut(1, LAN), 0.0)
    token = {probe.address: probe.token for probe in rounds.probes(0.0)}
    assert not rounds.answered(token[MAPPED], LAN)
    assert not rounds.answered(b"whatever", MAPPED)
    assert rounds.answered(token[MAPPED], MAPPED)


def test_who_has_answered_is_probed_no_more_in_that_round() -> None:
    rounds = server()
    rounds.reach_out(ReachOut(1, MAPPED), 0.0)
    [probe] = rounds.probes(0.0)
    assert rounds.answered(probe.token, MAPPED)
    assert not rounds.answered(probe.token, MAPPED)
    rounds.reach_out(ReachOut(1, MAPPED), 0.1)
    assert run(rounds, 30.0) == []


def test_a_new_round_voids_the_old_one() -> None:
    rounds = server()
    rounds.reach_out(ReachOut(1, MAPPED), 0.0)
    [probe] = rounds.probes(0.0)
    rounds.reach_out(ReachOut(2, LAN), 0.1)
    assert not rounds.answered(probe.token, MAPPED)
    assert {probe.address for _, probe in run(rounds, 30.0)} == {LAN}


def test_a_word_of_an_old_round_is_ignored() -> None:
    rounds = server()
    rounds.reach_out(ReachOut(2, MAPPED), 0.0)
    rounds.reach_out(ReachOut(1, LAN), 0.0)
    assert where(rounds.probes(0.0)) == {MAPPED}


def test_more_than_32_addresses_in_a_round_are_a_violation() -> None:
    rounds = server()
    for port in range(1, MAX_CANDIDATES + 1):
        rounds.reach_out(ReachOut(1, SocketAddr("192.0.2.1", port)), 0.0)
    rounds.reach_out(ReachOut(1, SocketAddr("192.0.2.1", 1)), 0.0)
    with pytest.raises(ProtocolError, match="32"):
        rounds.reach_out(ReachOut(1, SocketAddr("192.0.2.1", 99)), 0.0)


def test_addresses_beyond_32_of_a_server_are_ignored() -> None:
    rounds = client()
    for sequence in range(50):
        rounds.address_added(AddAddress(sequence, SocketAddr("192.0.2.1", 1000 + sequence)), 0.0)
    rounds.frames(0.0)
    assert len(where(rounds.probes(0.0))) == MAX_CANDIDATES


@pytest.mark.parametrize(
    ("ip", "port"),
    [
        ("192.0.2.1", 0),
        ("0.0.0.0", 1),
        ("0.1.2.3", 1),
        ("::", 1),
        ("255.255.255.255", 1),
        ("240.0.0.1", 1),
        ("224.0.0.251", 5353),
        ("ff02::fb", 5353),
        ("::ffff:192.0.2.1", 1),
        ("fe80::1", 1),
    ],
)
def test_what_is_no_single_host_is_never_probed(ip: str, port: int) -> None:
    bad = SocketAddr(ip, port)
    accepting, dialling = server(), client()
    accepting.reach_out(ReachOut(1, bad), 0.0)
    dialling.set_own([LAN], 0.0)
    dialling.address_added(AddAddress(0, bad), 0.0)
    assert run(accepting, 9.0) == []
    assert run(dialling, 9.0) == []
    assert dialling.challenge_back(bad, 9.0) is None


@given(st.ip_addresses(v=4).map(str), st.integers(1, 65535))
def test_no_multicast_or_broadcast_address_may_be_probed(ip: str, port: int) -> None:
    first = int(ip.split(".")[0])
    allowed = may_be_probed(SocketAddr(ip, port), loopback=True)
    assert allowed == (0 < first < 224)


def test_loopback_counts_only_for_who_is_there_too() -> None:
    here = SocketAddr("127.0.0.1", 7)
    rounds = server()
    rounds.set_own([PEER], 0.0)
    rounds.reach_out(ReachOut(1, here), 0.0)
    assert rounds.probes(0.0) == []
    rounds.set_own([SocketAddr("127.0.0.1", 8)], 0.0)
    rounds.reach_out(ReachOut(2, here), 0.0)
    assert where(rounds.probes(0.0)) == {here}


def test_addresses_no_socket_reaches_are_neither_probed_nor_told() -> None:
    rounds = client(reaches=lambda address: not address.is_ipv6)
    rounds.set_own([SocketAddr("2001:db8::1", 1), LAN], 0.0)
    rounds.address_added(AddAddress(0, SocketAddr("2001:db8::2", 1)), 0.0)
    assert rounds.frames(0.0) == [ReachOut(1, LAN)]
    assert rounds.probes(0.0) == []


def test_an_address_told_in_mid_round_is_probed_at_once_and_begins_a_new_round() -> None:
    rounds = client()
    rounds.set_own([MAPPED], 0.0)
    rounds.address_added(AddAddress(0, PEER), 0.0)
    rounds.frames(0.0)
    rounds.probes(0.0)
    rounds.address_added(AddAddress(1, PEER_LAN), 0.01)
    assert where(rounds.probes(0.01)) == {PEER_LAN}
    assert rounds.frames(0.01) == []
    assert rounds.frames(CHANGE_GAP) == [ReachOut(2, MAPPED)]


def test_a_server_that_tells_of_another_address_after_the_first_round_has_moved() -> None:
    rounds = client()
    rounds.set_own([MAPPED], 0.0)
    rounds.address_added(AddAddress(0, PEER), 0.0)
    assert not rounds.peer_moved
    rounds.frames(0.0)
    rounds.address_removed(RemoveAddress(0), 1.0)
    assert not rounds.peer_moved
    rounds.address_added(AddAddress(1, PEER_LAN), 1.0)
    assert rounds.peer_moved


def test_a_client_that_names_another_address_than_in_the_round_before_has_moved() -> None:
    rounds = server()
    for number in (1, 2):
        rounds.reach_out(ReachOut(number, MAPPED), 0.0)
        rounds.reach_out(ReachOut(number, LAN), 0.0)
    assert not rounds.peer_moved
    rounds.reach_out(ReachOut(3, LAN), 0.0)
    assert not rounds.peer_moved
    rounds.reach_out(ReachOut(4, MAPPED), 0.0)
    assert rounds.peer_moved


def test_an_address_given_by_the_user_is_probed_in_each_round() -> None:
    rounds = client()
    rounds.set_given([PEER])
    assert rounds.frames(0.0) == []
    assert where(rounds.probes(0.0)) == {PEER}
    rounds.address_added(AddAddress(0, PEER_LAN), 1.0)
    rounds.frames(1.0)
    assert where(rounds.probes(1.0)) == {PEER, PEER_LAN}
    rounds.address_removed(RemoveAddress(0), 2.0)
    rounds.frames(CHECK_EVERY + 1.0)
    assert where(rounds.probes(CHECK_EVERY + 1.0)) == {PEER}


def test_an_address_taken_back_is_probed_no_more() -> None:
    rounds = client()
    rounds.address_added(AddAddress(0, PEER), 0.0)
    rounds.frames(0.0)
    [probe] = rounds.probes(0.0)
    rounds.address_removed(RemoveAddress(0), 0.0)
    rounds.address_removed(RemoveAddress(7), 0.0)
    assert not rounds.answered(probe.token, PEER)
    assert run(rounds, 30.0) == []


def test_a_mapped_address_found_later_begins_a_new_round() -> None:
    rounds = client()
    rounds.set_own([LAN], 0.0)
    rounds.frames(0.0)
    rounds.set_own([LAN, MAPPED], 0.1)
    assert rounds.get_timer() == pytest.approx(CHANGE_GAP)
    assert rounds.frames(CHANGE_GAP) == [ReachOut(2, LAN), ReachOut(2, MAPPED)]


def begun(rounds: ClientRounds, until: float, now: float = 0.0) -> list[float]:
    """When rounds begin, driven by the timer alone."""
    times = list[float]()
    while (at := rounds.get_timer()) is not None and at <= until:
        now = max(now, at)
        if rounds.frames(now):
            times.append(now)
        rounds.probes(now)
    return times


def test_without_a_direct_path_rounds_begin_often_at_first_and_then_every_minute() -> None:
    rounds = client()
    rounds.set_own([LAN], 0.0)
    rounds.frames(0.0)
    times = begun(rounds, EAGER_TIME + 3 * CHECK_EVERY)
    eager = [at for at in times if at <= EAGER_TIME]
    assert eager == pytest.approx([EAGER_EVERY * n for n in range(1, 16)])
    later = [at for at in times if at > EAGER_TIME]
    assert later == pytest.approx([EAGER_TIME + CHECK_EVERY * n for n in (1, 2, 3)])


@pytest.mark.parametrize("what", ["a candidate", "the network", "the loss of the path"])
def test_what_has_changed_makes_rounds_begin_often_again(what: str) -> None:
    rounds = client()
    rounds.set_own([LAN], 0.0)
    rounds.frames(0.0)
    begun(rounds, 1000.0)
    if what == "a candidate":
        rounds.set_own([LAN, MAPPED], 1000.0)
    elif what == "the network":
        rounds.network_changed(1000.0)
    else:
        rounds.direct_path(0.002, 900.0)
        rounds.direct_path(None, 1000.0)
    assert len(begun(rounds, 1000.0 + EAGER_TIME, now=1000.0)) >= EAGER_TIME / EAGER_EVERY


def test_a_slow_direct_path_is_improved_upon_and_a_fast_one_is_kept() -> None:
    rounds = client()
    rounds.set_own([LAN], 0.0)
    rounds.frames(0.0)
    rounds.direct_path(0.002, 1.0)
    assert rounds.get_timer() is None
    rounds.direct_path(0.05, 1.0)
    assert rounds.get_timer() == pytest.approx(CHECK_EVERY)


def test_the_loss_of_the_direct_path_begins_a_round_soon() -> None:
    rounds = client()
    rounds.set_own([LAN], 0.0)
    rounds.frames(0.0)
    rounds.direct_path(0.002, 1.0)
    rounds.direct_path(None, 2.0)
    assert rounds.get_timer() == pytest.approx(QUIET_GAP)
    assert rounds.frames(QUIET_GAP) == [ReachOut(2, LAN)]
    assert rounds.get_timer() == pytest.approx(QUIET_GAP + EAGER_EVERY)


def test_a_changed_network_begins_a_round_at_once() -> None:
    rounds = client()
    rounds.set_own([LAN], 0.0)
    rounds.frames(0.0)
    rounds.direct_path(0.002, 0.01)
    rounds.network_changed(0.02)
    assert rounds.frames(0.02) == [ReachOut(2, LAN)]


def test_without_any_candidate_there_is_nothing_to_do() -> None:
    assert client().get_timer() is None
    assert server().get_timer() is None


def test_a_challenge_from_elsewhere_is_challenged_back() -> None:
    rounds = client()
    rounds.set_own([LAN], 0.0)
    probe = rounds.challenge_back(PEER, 0.0)
    assert probe is not None
    assert not rounds.answered(probe.token, PEER_LAN)
    assert rounds.answered(probe.token, PEER)


def test_a_flood_of_challenges_is_answered_without_ours() -> None:
    rounds = client()
    given = [rounds.challenge_back(SocketAddr("192.0.2.1", port), 0.0) for port in range(1, 999)]
    assert len([probe for probe in given if probe]) <= PROBE_BURST


def test_endless_rounds_send_no_more_probes_a_second_than_the_bound() -> None:
    rounds, sent, seconds = server(), 0, 20
    for tick in range(seconds * 10):
        for port in range(1, MAX_CANDIDATES + 1):
            rounds.reach_out(ReachOut(tick + 1, SocketAddr("192.0.2.1", port)), tick / 10)
        sent += len(rounds.probes(tick / 10))
    assert PROBES_PER_SECOND * (seconds - 1) < sent <= PROBES_PER_SECOND * seconds + PROBE_BURST


def test_a_full_round_is_slowed_but_reaches_every_address() -> None:
    rounds = server()
    for port in range(1, MAX_CANDIDATES + 1):
        rounds.reach_out(ReachOut(1, SocketAddr("192.0.2.1", port)), 0.0)
    sent = run(rounds, 60.0)
    assert len(sent) == MAX_CANDIDATES * 9
    for start in range(10):
        assert sum(start <= at < start + 1 for at, _ in sent) <= PROBES_PER_SECOND + PROBE_BURST


def test_all_connections_share_a_bound() -> None:
    shared = shared_budget(0.0)
    sent = 0
    for each in range(1, 100):
        rounds = server(shared=shared)
        for port in range(1, 21):
            rounds.reach_out(ReachOut(1, SocketAddr(f"192.0.2.{each}", port)), 0.0)
        sent += len(rounds.probes(0.0))
    assert sent <= 500


@given(
    st.lists(
        st.one_of(
            st.builds(
                AddAddress,
                st.integers(0, 2**62 - 1),
                st.builds(SocketAddr, st.ip_addresses().map(str), st.integers(0, 65535)),
            ),
            st.builds(RemoveAddress, st.integers(0, 5)),
            st.floats(0, 3),
        ),
        max_size=60,
    )
)
def test_whatever_a_server_tells_the_timer_never_asks_for_a_busy_loop(
    happens: list[AddAddress | RemoveAddress | float],
) -> None:
    rounds, now = client(), 0.0
    rounds.set_own([LAN], now)
    for each in happens:
        match each:
            case AddAddress():
                rounds.address_added(each, now)
            case RemoveAddress():
                rounds.address_removed(each, now)
            case _:
                now += each
        rounds.frames(now)
        rounds.probes(now)
        at = rounds.get_timer()
        assert at is None or at > now
