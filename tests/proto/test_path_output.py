"""What leaves because there are paths: control frames, acknowledgements, challenges."""

import pytest
from aioquic import tls
from aioquic._buffer import Buffer
from aioquic.quic.packet import pull_ack_frame
from tests.support.engines import CLIENT, PAIRS, SERVER, exchange, forged, varint
from tests.support.paths import FIRST, SECOND, PathNetwork, connected, path_of

from tunnel_rs.proto.engine import DATAGRAM_SIZE
from tunnel_rs.proto.multipath import MultipathEngine
from tunnel_rs.proto.multipath_frames import FrameType, encode_numbers
from tunnel_rs.proto.path_output import MAX_OFF_PATH, MAX_QUEUED
from tunnel_rs.proto.path_state import PathsChanged

PING = b"\x01"
CHALLENGE = b"\x1a"
STRANGER = "an address without a path"


@pytest.fixture(params=PAIRS)
def network(request: pytest.FixtureRequest) -> PathNetwork:
    return connected(request.param)


def said(sender: MultipathEngine, hearer: MultipathEngine, now: float) -> list[tuple[str, bytes]]:
    """What `sender` would send now: where to, and the frames, read with the hearer's keys."""
    contents = []
    for data, size, address in sender.trains(now):
        view = bytes(data)
        for start in range(0, len(view), size):
            datagram = view[start : start + size]
            path = hearer._path_of_id.get(datagram[1:9])
            _, frames, _ = hearer._keys.open(datagram, 9, 0, path.id if path else 0)
            contents.append((str(address), frames))
    return contents


def on_path(engine: MultipathEngine, path_id: int, frames: bytes) -> bytes:
    """A packet of `engine` on one of its paths."""
    path = engine._paths[path_id]
    packet = b""

    def make() -> None:
        nonlocal packet
        packet = forged(engine, frames)

    engine._on_path(path, make)
    return packet


def test_packets_are_acknowledged_on_the_path_they_came_on(network: PathNetwork) -> None:
    second = network.open(SECOND)
    network.settle()
    client, server = network.both()
    packet = on_path(client, second, PING)
    server.receive(memoryview(packet), len(packet), network.links[SECOND].near, network.now)
    network.now += 0.1
    [(address, frames)] = said(server, client, network.now)
    assert address == network.links[SECOND].near
    buf = Buffer(data=frames)
    assert buf.pull_uint_var() == FrameType.PATH_ACK and buf.pull_uint_var() == second
    acked, _ = pull_ack_frame(buf)
    number = client._paths[second].context["_packet_number"] - 1
    assert number in acked


def test_what_comes_on_an_abandoned_path_is_acknowledged_on_another(network: PathNetwork) -> None:
    second = network.open(SECOND)
    network.settle()
    client, server = network.both()
    late = on_path(client, second, PING)
    server.abandon_path(second, network.now)
    said(server, client, network.now)
    server.receive(memoryview(late), len(late), network.links[SECOND].near, network.now)
    network.now += 0.1
    [(address, frames)] = said(server, client, network.now)
    assert address == network.links[FIRST].near
    assert frames.startswith(bytes((FrameType.PATH_ACK, second)))


def test_control_frames_are_sent_until_they_arrive(network: PathNetwork) -> None:
    second = network.open(SECOND)
    client, server = network.both()
    network.links[FIRST].up.loss = 0.7
    for _ in range(10):
        client.set_available(second, True)
        client.set_available(second, False)
    network.run(20)
    path = path_of(server, second, network.now)
    assert path is not None and not path.peer_wants
    client.set_available(second, True)
    network.run(20)
    path = path_of(server, second, network.now)
    assert path is not None and path.peer_wants


def test_more_control_frames_than_one_packet_holds_leave_at_once(network: PathNetwork) -> None:
    client, server = network.both()
    for number in range(100):
        client._say(FrameType.PATHS_BLOCKED, encode_numbers(number % 8) + PING * 40)
    frames = b"".join(frames for _, frames in said(client, server, network.now))
    assert frames.count(varint(FrameType.PATHS_BLOCKED)) == 100
    assert not client._queue


def test_a_peer_that_acknowledges_nothing_is_cut_off(network: PathNetwork) -> None:
    client, _ = network.both()
    for number in range(MAX_QUEUED):
        client._say(FrameType.PATHS_BLOCKED, encode_numbers(number))
    assert not client.is_closing
    client._say(FrameType.PATHS_BLOCKED, encode_numbers(0))
    assert client.is_closing and not client._queue


def test_frames_that_matter_no_longer_do_not_count(network: PathNetwork) -> None:
    client, _ = network.both()
    for number in range(3 * MAX_QUEUED):
        client._say(FrameType.PATHS_BLOCKED, encode_numbers(number), lambda: False)
    assert not client.is_closing and len(client._queue) <= MAX_QUEUED


# Challenges and their answers


def test_a_challenge_fills_a_datagram_and_is_sent_again(network: PathNetwork) -> None:
    client, server = network.both()
    network.links[SECOND].cut()
    second = client.open_path(SECOND, network.now)
    assert second is not None
    sent: list[float] = []
    end = network.now + 14
    while network.now < end:
        for data, size, address in client.trains(network.now):
            if address == SECOND:
                assert len(data) == size == DATAGRAM_SIZE
                sent.append(network.now)
            elif address == FIRST:
                network.route(SERVER, bytes(data), address)
        timer = client.get_timer()
        assert timer is not None and timer > network.now - 1e-6
        network.now = max(network.now, timer)
        client.handle_timer(network.now)
        del server
        server = network.both()[1]
    gaps = [later - before for before, later in zip(sent, sent[1:], strict=False)]
    assert 6 <= len(sent) <= 20
    assert gaps == sorted(gaps) and gaps[-1] == pytest.approx(2.0, abs=0.01)


def test_an_answer_to_a_stranger_is_at_most_three_times_its_question(network: PathNetwork) -> None:
    client, server = network.both()
    question = forged(client, CHALLENGE + b"question")
    server.receive(memoryview(question), len(question), STRANGER, network.now)
    [(data, size, address)] = server.trains(network.now)
    assert address == STRANGER and len(data) == size
    assert len(question) < len(data) <= 3 * len(question)
    _, frames, _ = client._keys.open(bytes(data), 9, server._packet_number - 1, 0)
    assert frames.startswith(b"\x1bquestion")
    assert server.address == network.links[FIRST].near, "a question moves nothing"


def test_a_filled_question_has_a_filled_answer(network: PathNetwork) -> None:
    client, server = network.both()
    question = forged(client, CHALLENGE + b"question" + bytes(1160))
    server.receive(memoryview(question), len(question), STRANGER, network.now)
    [(data, _, _)] = server.trains(network.now)
    assert len(data) == DATAGRAM_SIZE


def test_many_questions_in_a_datagram_have_one_answer(network: PathNetwork) -> None:
    client, server = network.both()
    question = forged(client, b"".join(CHALLENGE + bytes((n,)) * 8 for n in range(50)))
    server.receive(memoryview(question), len(question), STRANGER, network.now)
    assert len(server.trains(network.now)) == 1


def test_questions_from_strangers_are_bounded(network: PathNetwork) -> None:
    client, server = network.both()
    for number in range(3 * MAX_OFF_PATH):
        question = forged(client, CHALLENGE + number.to_bytes(8, "big"))
        server.receive(memoryview(question), len(question), f"{STRANGER} {number}", network.now)
    answers = [train for train in server.trains(network.now) if str(train[2]).startswith(STRANGER)]
    assert len(answers) == MAX_OFF_PATH


def test_a_question_to_a_client_without_nat_traversal_is_dropped(network: PathNetwork) -> None:
    client, server = network.both()
    question = forged(server, CHALLENGE + b"question")
    client.receive(memoryview(question), len(question), STRANGER, network.now)
    assert client.trains(network.now) == []


def test_a_new_path_is_held_to_three_times_what_came(network: PathNetwork) -> None:
    """Until the client has answered, a server sends little to an address it was only told of."""
    client, server = network.both()
    link = network.links[SECOND]
    link.down.cut = True
    assert client.open_path(SECOND, network.now) is not None
    network.run(14)
    used = server._paths[1].network_paths[0]
    assert not used.is_validated
    assert 0 < used.bytes_sent <= 3 * used.bytes_received
    link.up.cut = True
    before = network.sent[CLIENT]
    network.run(30)
    assert used.bytes_sent <= 3 * used.bytes_received
    assert network.sent[CLIENT] - before < 20_000


def test_acknowledgements_alone_are_not_acknowledged(network: PathNetwork) -> None:
    second = network.open(SECOND)
    client, _ = network.both()
    client.select_path(second)
    exchange(network, 100_000)
    network.settle()
    before = network.datagrams
    network.run(2)
    assert network.datagrams == before
    assert network.client.event(PathsChanged)
    assert client._spaces[tls.Epoch.ONE_RTT].ack_at is None


def test_an_acknowledgement_that_has_no_room_is_not_waited_for_without_pause(
    network: PathNetwork,
) -> None:
    """A NAT gave the client another address, which may still be somebody else's: little may be sent
    there. What is due and does not fit must not keep the timer due."""
    _, server = network.both()
    used = server._data_path.network_paths[0]
    used.is_validated = False
    for room in range(20, 120):
        used.bytes_sent = 3 * used.bytes_received - room
        server._space.ack_at = network.now
        server.trains(network.now)
        timer = server.get_timer()
        assert timer is None or timer > network.now
