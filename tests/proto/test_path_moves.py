"""A client that moves to another address of its server, and the server that follows."""

import heapq
from collections.abc import Hashable, Iterator

import pytest
from tests.support.engines import (
    CLIENT,
    PAIRS,
    SERVER,
    TOKENS,
    Network,
    Peer,
    Wire,
    exchange,
    forged,
    varint,
)

from tunnel_rs.proto.engine import DATAGRAM_SIZE, Engine
from tunnel_rs.proto.transport_settings import TransportSettings

OTHER, THIRD = "other", "third"
NEAR_ENDS: dict[Hashable, Hashable] = {
    SERVER: CLIENT,
    OTHER: "client on the other path",
    THIRD: "client on the third path",
}
FAR_ENDS = {near: far for far, near in NEAR_ENDS.items()}


class TwoPaths(Network):
    """The server is reached at several addresses, each over a path of its own. The client's address
    is another on each, as it would be behind relays. What goes elsewhere is lost."""

    def __init__(self, *arguments: object, **options: object) -> None:
        self.other_up, self.other_down, self.third = Wire(), Wire(), Wire()
        self.largest = 0
        super().__init__(*arguments, **options)  # type: ignore[arg-type]
        self.paths: dict[Hashable, tuple[Wire, Wire]] = {
            SERVER: (self.up, self.down),
            OTHER: (self.other_up, self.other_down),
            THIRD: (self.third, self.third),
        }

    def _send(self, peer: Peer, wire: Wire, to: str) -> None:
        for data, segment_size, address in peer.engine.trains(self.now):
            place = address if to == SERVER else FAR_ENDS.get(address)
            if place not in self.paths:
                continue
            up, down = self.paths[place]
            origin = NEAR_ENDS[place] if to == SERVER else place
            view = bytes(data)
            for start in range(0, len(view), segment_size):
                datagram = view[start : start + segment_size]
                if place == OTHER:
                    self.largest = max(self.largest, len(datagram))
                self._carry_over(up if to == SERVER else down, to, datagram, origin)

    def _carry_over(self, wire: Wire, to: str, datagram: bytes, origin: Hashable) -> None:
        if wire.cut:
            return
        self._count += 1
        heapq.heappush(self._queue, (self.now + wire.delay, self._count, to, datagram, origin))

    def cut_first_path(self) -> None:
        self.up.cut = self.down.cut = True

    def cut_other_path(self) -> None:
        self.other_up.cut = self.other_down.cut = True


@pytest.fixture(params=PAIRS.values(), ids=PAIRS)
def network(request: pytest.FixtureRequest) -> Iterator[TwoPaths]:
    make_engine, make_server = request.param
    network = TwoPaths(
        TransportSettings(silence_timeout=10.0, multipath=False),
        make_engine=make_engine,
        make_server=make_server,
    )
    network.connect()
    yield network


def moved(network: TwoPaths) -> bool:
    return network.client.engine.address == OTHER


def test_a_client_moves_once_the_server_has_answered_from_there(network: TwoPaths) -> None:
    assert network.client.engine.probe(OTHER)
    assert network.client.engine.address == SERVER, "nothing is sent there but the question"
    network.run(1, lambda: moved(network))
    assert moved(network)
    exchange(network, 300_000)
    assert network.server is not None
    assert network.server.engine.address == NEAR_ENDS[OTHER]


def test_data_in_flight_on_a_dead_path_arrives_on_the_other(network: TwoPaths) -> None:
    client = network.client.engine
    stream = client.open_stream()
    assert stream is not None
    client.write(stream, b"x" * 50_000, True)
    network.flush()
    network.cut_first_path()
    network.run(3.0)
    assert client.silent_for(network.now) > 2.5
    assert client.probe(OTHER)
    began = network.now
    assert network.server is not None
    server = network.server
    network.run(5, lambda: stream in server.ended)
    assert bytes(server.received[stream]) == b"x" * 50_000
    assert network.now - began < 1.0, "nobody waits for a timer that has backed off"
    assert client.silent_for(network.now) < 0.1


def test_what_the_server_was_sending_arrives_on_the_other_path_too(network: TwoPaths) -> None:
    assert network.server is not None
    server = network.server.engine
    stream = network.client.engine.open_stream()
    assert stream is not None
    network.client.engine.write(stream, b"?", True)
    network.run(1)
    server.write(stream, b"y" * 50_000, True)
    network.flush()
    network.cut_first_path()
    network.run(3.0)
    assert network.client.engine.probe(OTHER)
    began = network.now
    network.run(5, lambda: stream in network.client.ended)
    assert bytes(network.client.received[stream]) == b"y" * 50_000
    assert network.now - began < 3.0


def test_a_question_that_is_lost_can_be_asked_again(network: TwoPaths) -> None:
    network.other_up.cut = True
    assert network.client.engine.probe(OTHER)
    network.run(1)
    network.other_up.cut = False
    network.run(1)
    assert not moved(network)
    spare = len(network.client.engine._peer_cid_available)
    assert network.client.engine.probe(OTHER)
    assert len(network.client.engine._peer_cid_available) == spare
    network.run(1, lambda: moved(network))
    assert moved(network)


def test_a_client_can_go_to_and_fro(network: TwoPaths) -> None:
    for turn in range(12):
        wanted = SERVER if turn % 2 else OTHER
        assert network.client.engine.probe(wanted)
        network.run(1, lambda wanted=wanted: network.client.engine.address == wanted)  # type: ignore[misc]
        assert network.client.engine.address == wanted
        exchange(network, 5_000)
    assert len(network.client.engine._network_paths) <= 2


def test_an_address_that_stays_silent_is_forgotten(network: TwoPaths) -> None:
    engine = network.client.engine
    network.cut_other_path()
    assert engine.probe(OTHER)
    network.run(1)
    engine.stop_probing()
    network.run(1)
    assert [path.addr for path in engine._network_paths] == [SERVER]
    exchange(network, 20_000)


def test_addresses_are_asked_while_there_are_connection_ids(network: TwoPaths) -> None:
    engine = network.client.engine
    spare = len(engine._peer_cid_available)
    network.cut_other_path()
    asked = [engine.probe(f"address {number}") for number in range(spare + 3)]
    assert asked == [True] * spare + [False] * 3
    engine.stop_probing()
    network.run(1)
    assert len(engine._peer_cid_available) == spare, "the server has replaced those used up"


def test_of_two_that_answer_the_first_is_taken(network: TwoPaths) -> None:
    engine = network.client.engine
    network.third.delay = 0.05
    assert engine.probe(THIRD)
    assert engine.probe(OTHER)
    network.run(1)
    assert moved(network)
    assert {path.addr for path in engine._network_paths} == {SERVER, OTHER}
    assert engine.probe(THIRD)
    network.run(1)
    assert engine.address == THIRD


def test_a_question_is_as_small_as_every_path_allows(network: TwoPaths) -> None:
    engine = network.client.engine
    engine._max_datagram_size = 9000  # as on a path that carries more
    network.other_down.cut = True
    assert engine.probe(OTHER)
    network.run(0.5)
    assert network.largest == DATAGRAM_SIZE


def test_nobody_moves_before_the_handshake_is_confirmed() -> None:
    network = TwoPaths()
    network.flush()
    assert not network.client.engine.probe(OTHER)


def test_nobody_moves_to_where_he_is_or_after_the_end(network: TwoPaths) -> None:
    engine = network.client.engine
    assert not engine.probe(SERVER)
    engine.close(reason_phrase="done")
    assert not engine.probe(OTHER)


def test_a_server_does_not_move(network: TwoPaths) -> None:
    assert network.server is not None
    assert not network.server.engine.probe(OTHER)


def test_a_peer_may_forbid_it(network: TwoPaths) -> None:
    engine = network.client.engine
    parameter = varint(0x0C) + varint(0)  # RFC 9000 section 18.2, disable_active_migration
    engine._parse_transport_parameters(parameter, from_session_ticket=True)
    assert not engine.probe(OTHER)


def test_an_answer_nobody_asked_for_moves_nobody(network: TwoPaths) -> None:
    assert network.server is not None
    network.other_down.cut = True
    assert network.client.engine.probe(OTHER)
    network.run(0.2)
    response = forged(network.server.engine, b"\x1b" + bytes(8))
    network.inject(CLIENT, response, OTHER)
    network.run(0.2)
    assert not moved(network)


def test_a_stateless_reset_that_answers_a_question_ends_the_connection(network: TwoPaths) -> None:
    engine = network.client.engine
    assert engine.probe(OTHER)
    used = engine._network_paths[1].peer_cid
    assert used is not None
    network.cut_first_path()
    network.cut_other_path()
    network.inject(CLIENT, b"\x40" + bytes(30) + TOKENS.token(used.cid), OTHER)
    assert engine.is_terminated and engine.was_closed_by_peer


# A path that is known to be down


def test_silence_on_a_path_that_is_down_does_not_end_the_connection(network: TwoPaths) -> None:
    engine = network.client.engine
    network.cut_first_path()
    engine.send_ping(1)
    network.run(1)
    engine.path_lost()
    assert engine.path_is_down
    network.run(60)
    assert not engine.is_closing


def test_a_path_that_is_back_is_used_at_once(network: TwoPaths) -> None:
    engine = network.client.engine
    stream = engine.open_stream()
    assert stream is not None and network.server is not None
    server = network.server
    network.cut_first_path()
    engine.path_lost()
    engine.write(stream, b"hello", True)
    network.run(60)
    network.up.cut = network.down.cut = False
    engine.ask(network.now)
    began = network.now
    network.run(5, lambda: stream in server.ended)
    assert stream in server.ended and network.now - began < 0.1
    assert not engine.path_is_down


def test_after_a_path_is_back_silence_counts_again(network: TwoPaths) -> None:
    engine = network.client.engine
    network.cut_first_path()
    engine.path_lost()
    engine.send_ping(1)
    network.run(30)
    engine.ask(network.now)
    network.run(9)
    assert not engine.is_closing
    network.run(2)
    assert engine.is_terminated and engine.timed_out


def test_asking_an_idle_peer_brings_an_answer(network: TwoPaths) -> None:
    engine = network.client.engine
    network.run(5)
    engine.ask(network.now)
    network.flush()
    assert engine.silent_for(network.now + 1) == pytest.approx(1.0)
    network.run(1)
    assert engine.silent_for(network.now) == 0.0


def test_asking_is_nothing_before_the_handshake() -> None:
    engine: Engine = TwoPaths().client.engine
    engine.ask(100.0)
    assert not engine.is_closing
