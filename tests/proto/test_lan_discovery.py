"""The rules of LAN discovery on a virtual clock, alone and in swarms with seeded loss."""

import heapq
import random
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel_rs.proto import mdns
from tunnel_rs.proto.lan_discovery import (
    BURST,
    MAX_ADDRESSES,
    MAX_PEERS,
    TAU,
    Found,
    LookupEnded,
    SwarmMember,
    Where,
    is_dialable,
)
from tunnel_rs.values import EndpointId, SocketAddr

SERVER_IP = "192.0.2.7"
ADDRESS = SocketAddr(SERVER_IP, 4444)
QUERY = mdns.encode_query()


def an_id(number: int) -> EndpointId:
    return EndpointId(number.to_bytes(32, "big"))


ID = an_id(1)


def announced(endpoint_id: EndpointId, *addresses: SocketAddr) -> bytes:
    [packet] = mdns.encode_response(endpoint_id, addresses)
    return packet


def addresses_of(packet: bytes) -> tuple[SocketAddr, ...]:
    message = mdns.decode(packet)
    assert isinstance(message, list)
    return message[0].addresses


def found_in(machine: SwarmMember) -> list[SocketAddr]:
    found = (event for event in machine.events() if isinstance(event, Found))
    return [address for event in found for address in event.addresses]


def announcer(
    addresses: Sequence[SocketAddr] = (ADDRESS,), uniform: Callable[[], float] = lambda: 0.5
) -> SwarmMember:
    """A machine that announces ID and has said so at time 0.02, at the latest."""
    machine = SwarmMember(uniform)
    machine.announce(ID, lambda: addresses, 0.0)
    machine.handle_timer(0.02)
    return machine


def seeker(uniform: Callable[[], float] = lambda: 0.5, timeout: float | None = None) -> SwarmMember:
    machine = SwarmMember(uniform)
    machine.start_lookup(ID, 0.0, timeout)
    return machine


# Answering


def test_an_announcer_says_once_that_it_is_here_and_then_waits_to_be_asked() -> None:
    machine = announcer()
    [packet] = machine.outgoing()
    assert (packet.data, packet.where) == (announced(ID, ADDRESS), Where.EVERYWHERE)
    assert machine.next_timer() is None


def test_a_question_is_answered_within_50_ms_when_nobody_else_is_here() -> None:
    machine = announcer(uniform=lambda: 0.999)
    machine.outgoing()
    machine.receive(QUERY, "192.0.2.9", 10.0)
    due = machine.next_timer()
    assert due is not None
    assert 10.0 <= due <= 10.05
    machine.handle_timer(due)
    assert [packet.data for packet in machine.outgoing()] == [announced(ID, ADDRESS)]
    assert machine.next_timer() is None


def test_a_flood_of_questions_draws_ten_answers_a_second_at_most() -> None:
    rng = random.Random(1)
    machine = announcer(uniform=rng.random)
    machine.outgoing()
    answers = 0
    for step in range(5000):
        now = 1.0 + step / 1000
        hinted = mdns.encode_query([ID], step.to_bytes(8, "big"))
        machine.receive(hinted if step % 2 else QUERY, "192.0.2.9", now)
        machine.handle_timer(now)
        answers += len(machine.outgoing())
    assert 40 <= answers <= 51


def test_an_answer_is_dropped_when_two_others_have_answered() -> None:
    machine = announcer()
    machine.outgoing()
    machine.receive(QUERY, "192.0.2.9", 10.0)
    machine.receive(announced(an_id(2), ADDRESS), "192.0.2.2", 10.0)
    machine.receive(announced(an_id(2), ADDRESS), "192.0.2.2", 10.0)
    assert machine.next_timer() is not None, "the same answer twice counts once"
    machine.receive(announced(an_id(3), ADDRESS), "192.0.2.3", 10.0)
    assert machine.next_timer() is None


def test_our_own_answer_looped_back_does_not_count() -> None:
    machine = announcer()
    machine.outgoing()
    machine.receive(QUERY, "192.0.2.9", 10.0)
    machine.receive(announced(an_id(2), ADDRESS), "192.0.2.2", 10.0)
    machine.receive(announced(ID, ADDRESS), "192.0.2.7", 10.0)
    assert machine.next_timer() is not None


def test_who_is_asked_for_in_particular_answers_at_once_whatever_others_do() -> None:
    machine = announcer(uniform=lambda: 0.999)
    machine.outgoing()
    for number in range(2, 40):
        machine.receive(announced(an_id(number), ADDRESS), "192.0.2.2", 9.9)
    machine.receive(mdns.encode_query([ID], bytes(8)), "192.0.2.9", 10.0)
    for number in range(2, 40):
        machine.receive(announced(an_id(number), ADDRESS), "192.0.2.2", 10.0)
    due = machine.next_timer()
    assert due is not None
    assert due <= 10.02


def test_a_question_for_somebody_else_is_answered_in_turn() -> None:
    machine = announcer(uniform=lambda: 0.999)
    machine.outgoing()
    machine.receive(mdns.encode_query([an_id(2)], bytes(8)), "192.0.2.9", 10.0)
    due = machine.next_timer()
    assert due is not None
    assert 10.02 < due < 10.06


def test_feigned_members_delay_an_answer_by_two_seconds_at_most() -> None:
    machine = announcer(uniform=lambda: 0.999)
    machine.outgoing()
    for number in range(2, 2000):
        machine.receive(announced(an_id(number), ADDRESS), "192.0.2.2", 10.0)
    machine.receive(QUERY, "192.0.2.9", 10.0)
    assert machine.next_timer() == pytest.approx(12.0)


def test_after_withdrawing_nothing_is_answered() -> None:
    machine = announcer()
    machine.outgoing()
    machine.receive(QUERY, "192.0.2.9", 10.0)
    machine.withdraw(ID)
    assert machine.next_timer() is None
    machine.receive(QUERY, "192.0.2.9", 11.0)
    machine.handle_timer(20.0)
    assert machine.outgoing() == []


def test_loopback_addresses_are_told_on_loopback_only() -> None:
    loopback = SocketAddr("127.0.0.1", 4444)
    packets = announcer([ADDRESS, loopback]).outgoing()
    assert [(packet.where, addresses_of(packet.data)) for packet in packets] == [
        (Where.NETWORK, (ADDRESS,)),
        (Where.LOOPBACK, (loopback, ADDRESS)),
    ]
    [packet] = announcer([loopback]).outgoing()
    assert (packet.where, addresses_of(packet.data)) == (Where.LOOPBACK, (loopback,))


def test_what_nobody_can_dial_is_not_announced_and_no_more_than_16_addresses_are() -> None:
    many = [SocketAddr("fe80::1", 1), SocketAddr("0.0.0.0", 1), SocketAddr(SERVER_IP, 0)]
    many += [SocketAddr(SERVER_IP, port) for port in range(1, 30)] * 2
    packets = announcer(many).outgoing()
    told = [address for packet in packets for address in addresses_of(packet.data)]
    assert told == [SocketAddr(SERVER_IP, port) for port in range(1, 1 + MAX_ADDRESSES)]


def test_without_addresses_nothing_is_said() -> None:
    machine = announcer([])
    assert machine.outgoing() == []


def test_an_attribute_that_is_too_long_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="longer than 255 bytes"):
        SwarmMember(lambda: 0.5).announce(ID, lambda: [], 0.0, user_data="x" * 300)


# Looking up


def test_a_lookup_asks_at_once_then_five_times_more_then_every_tau() -> None:
    machine = seeker()
    asked = [0.0] if machine.outgoing() else []
    while (now := machine.next_timer()) is not None and now < 4.0:
        machine.handle_timer(now)
        for packet in machine.outgoing():
            query = mdns.decode(packet.data)
            assert isinstance(query, mdns.Query)
            assert query.names(ID)
            assert packet.where is Where.EVERYWHERE
            asked.append(now)
    step = TAU * 1.05
    assert asked == pytest.approx([*BURST, *(BURST[-1] + step * n for n in range(1, 4))])


def test_a_lookup_finds_what_is_announced_and_tells_each_address_once() -> None:
    machine = seeker()
    machine.receive(announced(ID, ADDRESS), SERVER_IP, 0.05)
    assert machine.events() == [Found(1, ID, (ADDRESS,))]
    other = SocketAddr("192.0.2.8", 1)
    machine.receive(announced(ID, ADDRESS, other), SERVER_IP, 0.06)
    assert machine.events() == [Found(1, ID, (other,))]
    machine.receive(announced(ID, ADDRESS), SERVER_IP, 0.07)
    assert machine.events() == []


def test_once_something_is_found_a_lookup_asks_at_the_slow_pace() -> None:
    machine = seeker()
    machine.receive(announced(ID, ADDRESS), SERVER_IP, 0.05)
    assert machine.next_timer() == pytest.approx(TAU * 1.05)


def test_a_lookup_knows_what_was_heard_a_moment_ago_but_still_asks() -> None:
    machine = SwarmMember(lambda: 0.5)
    machine.receive(announced(ID, ADDRESS), SERVER_IP, 10.0)
    handle = machine.start_lookup(ID, 11.0)
    assert machine.events() == [Found(handle, ID, (ADDRESS,))]
    assert len(machine.outgoing()) == 1


def test_a_peer_expires_after_three_intervals() -> None:
    machine = SwarmMember(lambda: 0.5)
    machine.receive(announced(ID, ADDRESS), SERVER_IP, 10.0)
    machine.start_lookup(ID, 10.0 + 3 * TAU + 0.01)
    assert machine.events() == []


def test_an_address_that_is_no_longer_announced_expires_though_its_peer_does_not() -> None:
    machine = SwarmMember(lambda: 0.5)
    machine.receive(announced(ID, SocketAddr(SERVER_IP, 1)), SERVER_IP, 10.0)
    machine.receive(announced(ID, SocketAddr(SERVER_IP, 2)), SERVER_IP, 12.0)
    machine.start_lookup(ID, 12.5)
    assert found_in(machine) == [SocketAddr(SERVER_IP, 2)]


def test_a_lookup_ends_at_its_deadline_and_not_again() -> None:
    machine = seeker(timeout=0.5)
    machine.handle_timer(0.5)
    assert machine.events() == [LookupEnded(1, ID)]
    assert machine.next_timer() is None
    machine.receive(announced(ID, ADDRESS), SERVER_IP, 0.6)
    assert machine.events() == []


def test_a_cancelled_lookup_is_silent() -> None:
    machine = seeker()
    machine.outgoing()
    machine.cancel_lookup(1)
    machine.cancel_lookup(1)
    assert machine.next_timer() is None
    machine.receive(announced(ID, ADDRESS), SERVER_IP, 0.1)
    assert machine.events() == []


def test_two_lookups_of_one_id_are_served_both_and_end_apart() -> None:
    machine = seeker(timeout=5.0)
    second = machine.start_lookup(ID, 0.0, 8.0)
    machine.receive(announced(ID, ADDRESS), SERVER_IP, 0.1)
    assert machine.events() == [Found(1, ID, (ADDRESS,)), Found(second, ID, (ADDRESS,))]
    machine.handle_timer(5.0)
    assert machine.events() == [LookupEnded(1, ID)]
    assert machine.next_timer() is not None


def test_more_lookups_than_a_question_can_name_ask_everybody() -> None:
    machine = SwarmMember(lambda: 0.5)
    for number in range(mdns.MAX_HINTS + 1):
        machine.start_lookup(an_id(number), 0.0)
    assert machine.outgoing()[-1].data == QUERY


def test_what_we_announce_ourselves_can_be_looked_up_too() -> None:
    machine = announcer()
    [packet] = machine.outgoing()
    machine.start_lookup(ID, 1.0)
    machine.receive(packet.data, SERVER_IP, 1.0)
    assert found_in(machine) == [ADDRESS]


def test_somebody_elses_question_counts_as_ours_in_a_small_swarm() -> None:
    machine = seeker()
    machine.handle_timer(1.5)
    machine.receive(QUERY, "192.0.2.9", 1.8)
    assert machine.next_timer() == pytest.approx(1.8 + TAU * 1.05)


def test_in_a_large_swarm_only_a_question_for_the_same_endpoint_counts_as_ours() -> None:
    machine = seeker()
    for number in range(2, 12):
        machine.receive(announced(an_id(number), ADDRESS), "192.0.2.2", 1.4)
    machine.handle_timer(1.5)
    due = machine.next_timer()
    machine.receive(QUERY, "192.0.2.9", 1.7)
    assert machine.next_timer() == due
    machine.receive(mdns.encode_query([ID], bytes(8)), "192.0.2.9", 1.7)
    later = machine.next_timer()
    assert due is not None
    assert later is not None
    assert later > due


def test_a_new_interface_makes_us_heard_and_ask_again() -> None:
    machine = announcer()
    machine.start_lookup(an_id(2), 1.0)
    machine.handle_timer(1.7)
    machine.outgoing()
    machine.network_changed(1.75)
    machine.handle_timer(1.8)
    assert [type(mdns.decode(packet.data)) for packet in machine.outgoing()] == [mdns.Query, list]


# A hostile network


@pytest.mark.parametrize(
    "text",
    [
        "224.0.0.251:1",
        "255.255.255.255:1",
        "240.0.0.1:1",
        "0.0.0.0:1",
        "0.1.2.3:1",
        "[::]:1",
        "[ff02::fb]:1",
        "[fe80::1]:1",
        "192.0.2.7:0",
    ],
)
def test_an_address_that_must_not_be_dialled_is_refused(text: str) -> None:
    address = SocketAddr.parse(text, allow_port_zero=True)
    assert not is_dialable(address)
    machine = seeker()
    machine.receive(announced(ID, address), SERVER_IP, 0.1)
    assert machine.events() == []


@pytest.mark.parametrize("text", ["127.0.0.1:1", "169.254.1.1:1", "[::1]:1", "[fd00::1]:65535"])
def test_other_addresses_are_dialable(text: str) -> None:
    assert is_dialable(SocketAddr.parse(text))


@pytest.mark.parametrize("ip", ["127.0.0.1", "127.8.8.8", "::1"])
def test_a_loopback_address_is_believed_only_from_this_machine(ip: str) -> None:
    machine = seeker()
    machine.receive(announced(ID, SocketAddr(ip, 22), ADDRESS), SERVER_IP, 0.1)
    assert found_in(machine) == [ADDRESS]
    machine.receive(announced(ID, SocketAddr(ip, 22)), "127.0.0.1", 0.1)
    assert found_in(machine) == [SocketAddr(ip, 22)]


def test_a_liar_cannot_fill_the_list_before_the_endpoint_answers() -> None:
    machine = seeker()
    for port in range(1, 200):
        machine.receive(announced(ID, SocketAddr("192.0.2.66", port)), "192.0.2.99", 0.01)
    assert len(found_in(machine)) == MAX_ADDRESSES
    machine.receive(announced(ID, SocketAddr("10.0.0.7", 4444), ADDRESS), SERVER_IP, 0.02)
    assert found_in(machine) == [ADDRESS]
    for last in range(200):
        ip = f"192.0.2.{last}"
        machine.receive(announced(ID, SocketAddr(ip, 1)), ip, 0.03)
    assert len(found_in(machine)) == MAX_ADDRESSES - 1


def test_the_address_a_packet_came_from_is_told_first() -> None:
    machine = seeker()
    machine.receive(announced(ID, SocketAddr("10.0.0.7", 4444), ADDRESS), SERVER_IP, 0.02)
    assert found_in(machine) == [ADDRESS, SocketAddr("10.0.0.7", 4444)]


def test_the_number_of_peers_and_addresses_remembered_is_bounded() -> None:
    machine = SwarmMember(lambda: 0.5)
    for number in range(MAX_PEERS + 10):
        machine.receive(announced(an_id(number), ADDRESS), SERVER_IP, 1.0)
    for port in range(1, 40):
        machine.receive(announced(ID, SocketAddr(SERVER_IP, port)), SERVER_IP, 1.0)
    assert len(machine._peers) == MAX_PEERS
    machine.start_lookup(ID, 1.0)
    assert found_in(machine) == [SocketAddr(SERVER_IP, port) for port in range(24, 40)]
    machine.start_lookup(an_id(5), 1.0)
    assert found_in(machine) == [], "the one heard of longest ago was forgotten"


@given(
    st.lists(
        st.tuples(
            st.sampled_from([QUERY, mdns.encode_query([ID], bytes(8)), b"", b"_irohv1" * 5])
            | st.integers(1, 40).map(lambda n: announced(an_id(n), SocketAddr("192.0.2.1", n))),
            st.sampled_from(["127.0.0.1", "192.0.2.1", "fe80::1"]),
            st.floats(0.0, 1.0),
        ),
        max_size=40,
    )
)
def test_whatever_comes_timers_lie_ahead_and_output_is_bounded(
    packets: list[tuple[bytes, str, float]],
) -> None:
    machine = SwarmMember(lambda: 0.5)
    machine.announce(ID, lambda: [ADDRESS], 0.0)
    machine.start_lookup(an_id(2), 0.0, 30.0)
    now = 0.0
    for packet, source, wait in packets:
        now += wait
        machine.receive(packet, source, now)
        machine.handle_timer(now)
        due = machine.next_timer()
        assert due is None or due > now
        assert len(machine.outgoing()) <= 3
        assert len(machine.events()) <= 2


# Swarms


class RustMember:
    """A member that follows the published rules of swarm-discovery to the letter: always asks.

    Written from the spec and independent of the machine under test.
    """

    def __init__(self, endpoint_id: EndpointId, rng: random.Random) -> None:
        self.endpoint_id = endpoint_id
        self.rng = rng
        self.peers: dict[EndpointId, float] = {}
        self.lost: Counter[EndpointId] = Counter()
        self.answering = False
        self.heard = 0
        self.extra = 0.0
        self.has_answered = False
        self.due = 0.0
        self.sent: list[bytes] = []
        self.wait_to_ask(0.0)

    def wait_to_ask(self, now: float) -> None:
        self.answering = False
        self.due = now + 0.7 + self.rng.random() * 0.07 * len(self.peers or "x")

    def wait_to_answer(self, now: float) -> None:
        size = len(self.peers or "x")
        self.extra = 0.1 * min(size // 2, 10) if self.has_answered else max(0.0, self.extra - 0.1)
        self.has_answered, self.answering, self.heard = False, True, 0
        self.due = now + self.extra + self.rng.random() * 0.1 * size / 2

    def receive(self, packet: bytes, source_ip: str, now: float) -> None:
        message = mdns.decode(packet)
        if isinstance(message, mdns.Query) and not self.answering:
            self.wait_to_answer(now)
        elif isinstance(message, list):
            self.heard += len(message)
            self.peers.update({each.endpoint_id: now for each in message})
            if self.answering and self.heard >= 2:
                self.wait_to_ask(now)

    def next_timer(self) -> float:
        return self.due

    def handle_timer(self, now: float) -> None:
        grace = 3 * 0.7 * max(1.0, len(self.peers) / 2)
        for endpoint_id, seen in list(self.peers.items()):
            if now - seen > grace:
                del self.peers[endpoint_id]
                self.lost[endpoint_id] += 1
        if now < self.due:
            return
        if self.answering:
            self.sent.append(announced(self.endpoint_id, SocketAddr("192.0.2.200", 9)))
            self.has_answered = True
            self.wait_to_ask(now)
        else:
            self.sent.append(QUERY)
            self.wait_to_answer(now)


class Wire:
    """A multicast segment with 1 ms delay on which each copy may get lost."""

    def __init__(self, seed: int, loss: float) -> None:
        self.rng = random.Random(seed)
        self.loss = loss
        self.now = 0.0
        self.members: list[tuple[str, SwarmMember | RustMember]] = []
        self.sent: Counter[str] = Counter()
        self._flying: list[tuple[float, int, int, bytes, str]] = []
        self._order = count()

    def join(self, member: SwarmMember | RustMember) -> None:
        self.members.append((f"192.0.2.{len(self.members) + 1}", member))

    def flush(self) -> None:
        for ip, member in self.members:
            if isinstance(member, RustMember):
                packets, member.sent = member.sent, []
            else:
                packets = [packet.data for packet in member.outgoing()]
            for packet in packets:
                query = isinstance(mdns.decode(packet), mdns.Query)
                self.sent["queries" if query else "answers"] += 1
                for index, (to, _) in enumerate(self.members):
                    if to == ip or self.rng.random() >= self.loss:
                        flight = (self.now + 0.001, next(self._order), index, packet, ip)
                        heapq.heappush(self._flying, flight)

    def run(self, until: float, stop: Callable[[], bool] = lambda: False) -> None:
        self.flush()
        while not stop():
            timers = [member.next_timer() for _, member in self.members]
            due = min([timer for timer in timers if timer is not None], default=until)
            if self._flying:
                due = min(due, self._flying[0][0])
            if due >= until:
                self.now = until
                return
            self.now = max(self.now, due)
            while self._flying and self._flying[0][0] <= self.now:
                _, _, index, packet, source = heapq.heappop(self._flying)
                self.members[index][1].receive(packet, source, self.now)
            for _, member in self.members:
                timer = member.next_timer()
                if timer is not None and timer <= self.now:
                    member.handle_timer(self.now)
            self.flush()


def join_announcers(wire: Wire, number: int) -> None:
    for n in range(number):
        machine = SwarmMember(wire.rng.random)
        address = SocketAddr(f"192.0.2.{len(wire.members) + 1}", 4444)
        machine.announce(an_id(100 + n), lambda address=address: [address], wire.now)  # type: ignore[misc]
        wire.join(machine)


def time_to_find(wire: Wire, endpoint_id: EndpointId) -> float:
    machine = SwarmMember(wire.rng.random)
    wire.join(machine)
    began = wire.now
    machine.start_lookup(endpoint_id, began)
    found: list[SocketAddr] = []

    def stop() -> bool:
        found.extend(found_in(machine))
        return bool(found)

    wire.run(began + 10.0, stop)
    return wire.now - began


@pytest.mark.parametrize("peers", [1, 2, 20, 100])
def test_a_peer_is_found_within_50_ms_however_many_there_are(peers: int) -> None:
    wire = Wire(seed=7, loss=0.0)
    join_announcers(wire, peers)
    wire.run(30.0)
    assert time_to_find(wire, an_id(100 + peers // 2)) < 0.05


@pytest.mark.parametrize("seed", range(10))
def test_a_peer_is_found_within_two_seconds_when_a_third_of_the_packets_is_lost(seed: int) -> None:
    wire = Wire(seed, loss=0.3)
    join_announcers(wire, 20)
    wire.run(30.0)
    assert time_to_find(wire, an_id(110)) < 2.0


def test_announcers_alone_are_silent() -> None:
    wire = Wire(seed=1, loss=0.0)
    join_announcers(wire, 20)
    wire.run(5.0)
    wire.sent.clear()
    wire.run(600.0)
    assert wire.sent.total() == 0


@pytest.mark.parametrize("peers", [2, 20])
def test_a_lookup_in_vain_draws_a_bounded_number_of_packets(peers: int) -> None:
    wire = Wire(seed=1, loss=0.0)
    join_announcers(wire, peers)
    wire.run(5.0)
    wire.sent.clear()
    machine = SwarmMember(wire.rng.random)
    wire.join(machine)
    machine.start_lookup(ID, wire.now, 10.0)
    wire.run(20.0)
    assert 16 <= wire.sent["queries"] <= 18
    assert wire.sent["answers"] <= 3 * wire.sent["queries"]


@pytest.mark.parametrize("rust", [1, 3, 15])
def test_a_silent_announcer_is_never_lost_by_members_that_always_ask(rust: int) -> None:
    wire = Wire(seed=3, loss=0.0)
    members = [RustMember(an_id(500 + n), wire.rng) for n in range(rust)]
    for member in members:
        wire.join(member)
    join_announcers(wire, 1)
    wire.run(60.0)
    us, others = an_id(100), Counter[EndpointId]()
    for member in members:
        others += member.lost
    assert all(us in member.peers for member in members)
    # In a large swarm chance alone decides who answers: we must not fare worse than they do.
    per_member = (others.total() - others[us]) / rust
    assert others[us] <= 2 * per_member + rust * (rust > 3)


@pytest.mark.parametrize(("rust", "within"), [(1, 0.5), (2, 1.0), (10, 10.0)])
def test_a_member_that_follows_the_published_rules_is_found(rust: int, within: float) -> None:
    wire = Wire(seed=5, loss=0.0)
    for n in range(rust):
        wire.join(RustMember(an_id(500 + n), wire.rng))
    join_announcers(wire, 1)
    wire.run(10.0)
    assert time_to_find(wire, an_id(500)) < within
