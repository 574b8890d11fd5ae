"""Silence on paths: keep-alive, failover, what is given up and what is not."""

from typing import Any

import pytest
from aioquic.quic.recovery import QuicPacketSpace
from tests.support.engines import CLIENT, PAIRS, SERVER, exchange
from tests.support.paths import (
    FIRST,
    SECOND,
    THIRD,
    PathNetwork,
    connected,
    data_path,
    events_of,
    path_of,
)

from tunnel_rs.proto.multipath_frames import PathError
from tunnel_rs.proto.path_life import KEEP_ALIVE
from tunnel_rs.proto.path_state import DataPathChanged, PathAbandoned, PathsChanged
from tunnel_rs.proto.path_timers import IDLE_TIME, VALIDATION_TIME


@pytest.fixture(params=PAIRS)
def network(request: pytest.FixtureRequest) -> PathNetwork:
    return connected(request.param)


def ids(network: PathNetwork) -> list[list[int]]:
    return [[path.id for path in engine.paths(network.now)] for engine in network.both()]


# Keeping alive


def test_idle_paths_stay(network: PathNetwork) -> None:
    second = network.open(SECOND)
    network.run(120)
    assert ids(network) == [[0, second], [0, second]]
    for engine in network.both():
        for path in engine.paths(network.now):
            assert path.silent_for < 2 * KEEP_ALIVE and path.ptos == 0
    exchange(network, 50_000)


def test_keeping_two_paths_alive_costs_little(network: PathNetwork) -> None:
    network.open(SECOND)
    network.run(10)
    before = network.datagrams
    network.run(100)
    assert network.datagrams - before < 100 / KEEP_ALIVE * 2 * 2 * 2 + 10


def test_one_path_is_kept_alive_as_without_multipath(network: PathNetwork) -> None:
    before = network.datagrams
    network.run(100)
    assert network.datagrams - before < 40
    second = network.open(SECOND)
    client, _ = network.both()
    client.abandon_path(second, network.now)
    network.run(20)
    before = network.datagrams
    network.run(100)
    assert network.datagrams - before < 40


def test_who_was_stopped_beyond_the_idle_timeout_sends_nothing_more(network: PathNetwork) -> None:
    """A local program's data may be seen before the timer is: it would begin a new timeout."""
    client, _ = network.both()
    stream = client.open_stream()
    assert stream is not None
    network.settle()
    now = network.now + 400
    client.write(stream, b"question", False)
    assert not client.urgent_trains(now)
    assert not client.trains(now)
    due = client.get_timer()
    assert due is not None and due < now
    client.handle_timer(now)
    assert client.is_terminated and client.timed_out


# Failover


@pytest.mark.parametrize("sender", [CLIENT, SERVER])
def test_data_leaves_a_dead_path_within_three_timeouts(network: PathNetwork, sender: str) -> None:
    second = network.open(SECOND)
    exchange(network, 100_000)
    client, server = network.both()
    from_client = sender == CLIENT
    stream = client.open_stream()
    assert stream is not None and network.server is not None
    client.write(stream, b"?", False)
    network.settle()
    network.links[FIRST].cut()
    started = network.now
    (client if from_client else server).write(stream, b"!" * 50_000, True)
    receiver = network.server if from_client else network.client
    network.run(10, lambda: stream in receiver.ended)
    assert stream in receiver.ended
    assert network.now - started < 0.4
    network.settle()
    assert data_path(client, network.now) == data_path(server, network.now) == second
    [event] = events_of(network.client if from_client else network.server, PathAbandoned)
    assert event.code == PathError.PATH_UNSTABLE_OR_POOR and not event.by_peer


def test_a_dead_idle_data_path_is_noticed_too(network: PathNetwork) -> None:
    second = network.open(SECOND)
    network.links[FIRST].cut()
    network.run(2 * KEEP_ALIVE)
    client, server = network.both()
    assert data_path(client, network.now) == data_path(server, network.now) == second


def test_the_others_are_asked_when_the_data_path_is_silent(network: PathNetwork) -> None:
    network.open(SECOND)
    network.open(THIRD)
    network.links[FIRST].cut()
    network.links[SECOND].cut()
    client, _ = network.both()
    stream = client.open_stream()
    assert stream is not None
    client.write(stream, b"!" * 50_000, True)
    network.run(3)
    assert client.address == THIRD
    assert network.server is not None and stream in network.server.ended
    assert [event.path_id for event in events_of(network.client, DataPathChanged)][-1] == 2


def test_a_silent_data_path_is_given_up_before_anybody_is_told_that_another_answers(
    network: PathNetwork,
) -> None:
    """Who chooses paths would leave it too, but not give it up; and the peer might stay on it."""
    network.open(SECOND)
    client, _ = network.both()
    stream = client.open_stream()
    assert stream is not None
    network.settle()
    network.links[FIRST].cut()
    network.links[SECOND].delay(0.3)
    network.client.events.clear()
    client.write(stream, b"!" * 50_000, True)
    network.run(10, lambda: bool(events_of(network.client, PathAbandoned)))
    told = [type(event) for event in network.client.events]
    assert told[: told.index(PathAbandoned)] == [PathsChanged], "that it is silent"


def test_what_is_asked_puts_no_probe_timeout_off(network: PathNetwork) -> None:
    network.open(SECOND)
    exchange(network, 50_000)
    network.settle()
    client, _ = network.both()
    stream = client.open_stream()
    assert stream is not None
    network.links[FIRST].cut()
    timeout, started = client._recovery.get_probe_timeout(), network.now
    client.write(stream, b"?", True)
    network.run(10, lambda: bool(events_of(network.client, PathAbandoned)))
    assert network.now - started < (1 + 2 + 4) * timeout + 0.04


def test_a_data_path_that_dies_while_it_is_in_doubt_is_left(network: PathNetwork) -> None:
    """It has answered a challenge in this doubt; what counts is the last one."""
    second = network.open(SECOND)
    network.settle()
    client, _ = network.both()
    stream = client.open_stream()
    assert stream is not None and network.server is not None
    network.links[FIRST].delay(0.1)
    client.write(stream, b"!" * 50_000, True)
    network.run(0.35, lambda: client._data_path.confirmed_at > network.now - 0.01)
    network.links[FIRST].cut()
    network.run(5, lambda: network.server is not None and stream in network.server.ended)
    assert stream in network.server.ended
    assert data_path(client, network.now) == second


@pytest.fixture
def network_with_iroh(monkeypatch: pytest.MonkeyPatch, network: PathNetwork) -> PathNetwork:
    """The server sends acknowledgements on its data path alone, as iroh does. Here those of other
    paths get lost altogether, as they do in iroh's case once its data path is dead."""
    _, server = network.both()
    write = server._write_ack_frame

    def write_on_data_path(builder: Any, space: QuicPacketSpace, now: float) -> None:
        if server._path is server._data_path:
            write(builder=builder, space=space, now=now)
        else:
            space.ack_at = None

    monkeypatch.setattr(server, "_write_ack_frame", write_on_data_path)
    return network


def test_who_acknowledges_on_a_dead_path_only_is_heard_on_another(
    network_with_iroh: PathNetwork,
) -> None:
    network = network_with_iroh
    second = network.open(SECOND)
    client, server = network.both()
    stream = client.open_stream()
    assert stream is not None and network.server is not None
    network.links[FIRST].cut()
    client.write(stream, b"!" * 50_000, True)
    network.run(1.0, lambda: network.server is not None and stream in network.server.ended)
    assert stream in network.server.ended
    assert data_path(client, network.now) == data_path(server, network.now) == second
    [event] = events_of(network.client, PathAbandoned)
    assert event.code == PathError.PATH_UNSTABLE_OR_POOR and not event.by_peer


def test_a_peer_that_stays_on_a_dead_path_is_made_to_leave_it(
    network_with_iroh: PathNetwork,
) -> None:
    network = network_with_iroh
    second = network.open(SECOND)
    client, server = network.both()
    client.select_path(second)
    network.settle()
    server.select_path(0)
    network.settle()
    assert [data_path(client, network.now), data_path(server, network.now)] == [second, 0]
    network.run(5)
    assert ids(network) == [[0, second], [0, second]], "the first path answers"
    network.links[FIRST].cut()
    stream = client.open_stream()
    assert stream is not None and network.server is not None
    client.write(stream, b"?", True)
    network.run(5)
    assert data_path(server, network.now) == second
    server.write(stream, b"!" * 50_000, True)
    network.run(1.0, lambda: stream in network.client.ended)
    assert stream in network.client.ended
    [event] = events_of(network.client, PathAbandoned)
    assert event.path_id == 0 and event.code == PathError.PATH_UNSTABLE_OR_POOR


def test_in_an_outage_of_everything_no_path_is_given_up(network: PathNetwork) -> None:
    second = network.open(SECOND)
    client, _ = network.both()
    stream = client.open_stream()
    assert stream is not None
    for link in network.links.values():
        link.cut()
    client.write(stream, b"!" * 50_000, True)
    network.run(200)
    assert ids(network) == [[0, second], [0, second]]
    for link in network.links.values():
        link.cut(False)
    network.run(2.5, lambda: network.server is not None and stream in network.server.ended)
    assert network.server is not None and stream in network.server.ended
    assert not client.is_closing


def test_a_peer_that_was_busy_loses_no_path(network: PathNetwork) -> None:
    """A program that stands still for a while answers late on all paths."""
    second = network.open(SECOND)
    exchange(network, 50_000)
    client, _ = network.both()
    stream = client.open_stream()
    assert stream is not None
    client.write(stream, b"?" * 20_000, False)
    for _ in range(5):
        for link in network.links.values():
            link.up.delay = 0.5
        network.run(0.5)
        for link in network.links.values():
            link.up.delay = 0.001
        client.write(stream, b"?" * 20_000, False)
        network.run(1)
    assert ids(network) == [[0, second], [0, second]]
    assert not events_of(network.client, PathAbandoned)


def test_silence_and_its_end_are_told(network: PathNetwork) -> None:
    client, _ = network.both()
    stream = client.open_stream()
    assert stream is not None
    network.links[FIRST].cut()
    client.write(stream, b"?", False)
    network.client.events.clear()
    network.run(1)
    assert len(events_of(network.client, PathsChanged)) == 1
    path = path_of(client, 0, network.now)
    assert path is not None and path.ptos > 2
    network.links[FIRST].cut(False)
    network.run(3)
    assert len(events_of(network.client, PathsChanged)) == 2
    path = path_of(client, 0, network.now)
    assert path is not None and path.ptos == 0


# Giving up


def test_an_address_that_does_not_answer_is_given_up(network: PathNetwork) -> None:
    client, server = network.both()
    network.links[SECOND].cut()
    second = client.open_path(SECOND, network.now)
    network.run(VALIDATION_TIME - 1)
    assert path_of(client, second or 0, network.now) is not None
    network.run(2)
    assert path_of(client, second or 0, network.now) is None
    network.links[SECOND].cut(False)
    assert network.open(SECOND) == 2
    assert server.paths(network.now)[-1].id == 2


def test_a_path_that_is_half_open_is_given_up_by_the_server(network: PathNetwork) -> None:
    client, server = network.both()
    network.links[SECOND].down.cut = True
    assert client.open_path(SECOND, network.now) is not None
    network.run(1)
    assert len(server.paths(network.now)) == 2
    network.run(VALIDATION_TIME + 5)
    assert ids(network) == [[0], [0]]


def test_a_backup_that_is_silent_is_given_up_at_last(network: PathNetwork) -> None:
    network.open(SECOND)
    network.links[SECOND].cut()
    network.run(IDLE_TIME + 3 * KEEP_ALIVE)
    assert ids(network) == [[0], [0]]
    [event] = events_of(network.client, PathAbandoned)
    assert event.code == PathError.PATH_UNSTABLE_OR_POOR


def test_a_short_outage_of_a_backup_costs_nothing(network: PathNetwork) -> None:
    second = network.open(SECOND)
    network.links[SECOND].cut()
    network.run(IDLE_TIME / 2)
    network.links[SECOND].cut(False)
    network.run(2 * KEEP_ALIVE)
    assert ids(network) == [[0, second], [0, second]]
    path = path_of(network.both()[0], second, network.now)
    assert path is not None and path.ptos == 0


# Another address on the same path (RFC 9000 section 9)


@pytest.mark.parametrize("on_data_path", [True, False])
def test_a_client_whose_nat_forgot_it_is_found_again(
    network: PathNetwork, on_data_path: bool
) -> None:
    second = network.open(SECOND)
    client, server = network.both()
    if on_data_path:
        client.select_path(second)
        network.settle()
    network.links[SECOND].near = "another port"
    network.run(2 * KEEP_ALIVE)
    path = path_of(server, second, network.now)
    assert path is not None and path.address == "another port" and path.is_validated
    exchange(network, 100_000)
    assert len(server._paths[second].network_paths) == 1


def test_a_forged_new_address_does_not_keep_a_path(network: PathNetwork) -> None:
    """Somebody who can copy the client's packets cannot pull its path to himself for long."""
    second = network.open(SECOND)
    client, server = network.both()
    client.select_path(second)
    network.settle()
    client.send_ping(0)
    [(data, _, _)] = client.trains(network.now)
    network.inject(SERVER, bytes(data), "the thief")
    path = path_of(server, second, network.now)
    assert path is not None and path.address == "the thief" and not path.is_validated
    network.run(3)
    path = path_of(server, second, network.now)
    assert path is not None and path.address == network.links[SECOND].near
    exchange(network, 100_000)


def test_we_speak_also_where_the_peer_is_heard_and_asks_nothing(network: PathNetwork) -> None:
    """As iroh, whose acknowledgements for all paths come on one, and which gives up a path on which
    it has heard nothing for 15 s."""
    second = network.open(SECOND)
    client, _ = network.both()
    path = client._paths[second]
    asked = []
    for look in range(4):
        now = network.now + look * KEEP_ALIVE
        path.heard_at = path.keep_alive_at = now
        client._watch(path, now)
        asked.append(bool(path.pings))
        path.pings.clear()
    assert asked == [False, True, True, True]
