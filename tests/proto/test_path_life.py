"""Paths opened, preferred and abandoned, and the ids and limits that this needs."""

import pytest
from tests.support.engines import (
    CLIENT,
    PAIRS,
    SERVER,
    exchange,
    forged,
    open_stream,
    payload,
    varint,
)
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

from tunnel_rs.proto.multipath_frames import FrameType, PathError, encode_numbers
from tunnel_rs.proto.path_life import IDS_PER_PATH, MAX_DRAINING, MAX_PATHS
from tunnel_rs.proto.path_state import PathAbandoned, PathOpened, PathValidated
from tunnel_rs.proto.transport_settings import TransportSettings

NAMES = tuple(f"link {number}" for number in range(12))


@pytest.fixture(params=PAIRS)
def network(request: pytest.FixtureRequest) -> PathNetwork:
    return connected(request.param)


# Opening


def test_a_path_is_valid_once_both_sides_have_answered(network: PathNetwork) -> None:
    assert network.open(SECOND) == 1
    for peer in (network.client, network.server):
        [event] = events_of(peer, PathValidated)
        assert event.path_id == 1 and event.rtt == pytest.approx(0.002)
    client, server = network.both()
    assert data_path(client, network.now) == data_path(server, network.now) == 0


def test_an_address_has_one_path(network: PathNetwork) -> None:
    client, _ = network.both()
    assert client.open_path(SECOND, network.now) == 1
    assert client.open_path(SECOND, network.now) == 1
    assert client.open_path(FIRST, network.now) == 0
    network.settle()
    assert client.open_path(SECOND, network.now) == 1
    assert len(client.paths(network.now)) == 2


def test_only_a_client_opens_paths(network: PathNetwork) -> None:
    _, server = network.both()
    assert server.open_path(SECOND, network.now) is None


def test_paths_wait_for_the_end_of_the_handshake() -> None:
    network = PathNetwork()
    client = network.client.engine
    assert client.open_path(SECOND, network.now) is None  # type: ignore[attr-defined]


@pytest.mark.parametrize("who", ["client_settings", "server_settings"])
def test_a_peer_that_knows_no_paths_has_one(who: str) -> None:
    network = connected(**{who: TransportSettings(multipath=False)})
    client, server = network.both()
    assert not client.is_multipath and not server.is_multipath
    assert client.open_path(SECOND, network.now) is None
    client.select_path(1)
    client.set_available(0, False)
    client.challenge(0, network.now)
    assert not client.abandon_path(0, network.now)
    exchange(network, 100_000)
    assert [path.id for path in client.paths(network.now)] == [0]


def test_a_second_path_over_a_proven_address_is_valid_at_once(network: PathNetwork) -> None:
    client, server = network.both()
    network.open(SECOND)
    network.settle()
    client._paths[1].network_paths[0].addr = "elsewhere"  # so that the client opens another there
    assert client.open_path(SECOND, network.now) == 2
    network.run(0.0015)
    path = path_of(server, 2, network.now)
    assert path is not None and path.is_validated and path.rtt is None
    network.settle()
    path = path_of(server, 2, network.now)
    assert path is not None and path.rtt is not None


def test_there_are_no_more_paths_than_both_allow() -> None:
    network = connected(names=NAMES)
    client, server = network.both()
    for name in NAMES[1:MAX_PATHS]:
        network.open(name)
    assert client.open_path(NAMES[MAX_PATHS], network.now) is None
    assert len(client.paths(network.now)) == len(server.paths(network.now)) == MAX_PATHS
    client.abandon_path(3, network.now)
    network.settle()
    assert network.open(NAMES[MAX_PATHS]) == MAX_PATHS


def test_a_client_that_is_held_back_says_so(network: PathNetwork) -> None:
    client, _ = network.both()
    client._remote_max_path = 0
    for _ in range(5):
        assert client.open_path(SECOND, network.now) is None
    assert [frame.kind for frame in client._queue] == [FrameType.PATHS_BLOCKED]
    client._queue.clear()
    client._remote_max_path = 20
    client._local_max_path = 20
    client._highest_used = 19
    assert client.open_path(SECOND, network.now) is None
    assert [frame.kind for frame in client._queue] == [FrameType.PATH_CIDS_BLOCKED]


def test_path_ids_do_not_run_out() -> None:
    """Each path that is abandoned makes room for another, in both directions and for ever."""
    network = connected(names=NAMES)
    client, server = network.both()
    for turn in range(60):
        name = NAMES[1 + turn % 10]
        path_id = network.open(name)
        assert path_id == turn + 1
        (client if turn % 3 else server).abandon_path(path_id, network.now)
        network.settle()
    exchange(network, 50_000)
    for engine in (client, server):
        assert len(engine._paths) <= MAX_PATHS + 1
        assert len(engine._gone) <= 2, "ids that are gone are kept as ranges"
        assert len(engine._path_of_id) <= IDS_PER_PATH * MAX_PATHS


# Preferring


def test_data_goes_where_it_is_wanted(network: PathNetwork) -> None:
    second = network.open(SECOND)
    client, server = network.both()
    exchange(network, 20_000)
    assert data_path(client, network.now) == 0, "a path begins as a backup"
    client.select_path(second)
    network.settle()
    assert data_path(client, network.now) == data_path(server, network.now) == second
    exchange(network, 100_000)
    client.select_path(0)
    network.settle()
    assert data_path(client, network.now) == data_path(server, network.now) == 0
    exchange(network, 100_000)


@pytest.mark.parametrize("silence", [0.0, 0.25], ids=["as it dies", "while it is silent"])
def test_what_is_in_flight_on_a_path_that_is_left_arrives_by_the_other(
    network: PathNetwork, silence: float
) -> None:
    """The path stays open, for it may be better again: what was sent there is not waited for."""
    client, _ = network.both()
    second = network.open(SECOND)
    for link in network.links.values():
        link.delay(0.030)
    client.select_path(second)
    network.settle()
    exchange(network, 50_000)
    streams = [open_stream(network.client) for _ in range(12)]
    for stream in streams:  # packets of their own
        client.write(stream, payload(800, stream), True)
        network.run(0.001)
    network.links[SECOND].cut()
    network._queue.clear()
    network.run(silence)
    client.select_path(0)
    began = network.now
    server = network.server
    assert server is not None
    network.run(20, lambda: server.ended.issuperset(streams))
    assert network.now - began < 0.5
    assert path_of(client, second, network.now) is not None


def test_a_path_that_is_wanted_before_it_is_valid_is_used_then(network: PathNetwork) -> None:
    client, _ = network.both()
    second = client.open_path(SECOND, network.now)
    assert second is not None
    client.select_path(second)
    assert client.address == FIRST
    network.settle()
    assert client.address == SECOND


def test_each_side_chooses_for_what_it_sends(network: PathNetwork) -> None:
    second = network.open(SECOND)
    client, server = network.both()
    server.select_path(second)
    client.select_path(0)
    network.settle()
    assert (data_path(client, network.now), data_path(server, network.now)) == (0, second)
    exchange(network, 400_000)


def test_a_backup_is_used_when_nothing_else_is_left(network: PathNetwork) -> None:
    second = network.open(SECOND)
    client, _ = network.both()
    client.set_available(second, False)
    client.abandon_path(0, network.now)
    assert client.address == SECOND
    exchange(network, 50_000)


def test_a_stale_status_changes_nothing(network: PathNetwork) -> None:
    client, server = network.both()
    second = network.open(SECOND)
    client.set_available(second, True)
    network.settle()
    old = varint(FrameType.PATH_STATUS_BACKUP) + encode_numbers(second, 1)
    network.inject(SERVER, forged(client, old), network.links[FIRST].near)
    path = path_of(server, second, network.now)
    assert path is not None and path.peer_wants


# Abandoning


def test_both_sides_leave_an_abandoned_path(network: PathNetwork) -> None:
    second = network.open(SECOND)
    client, server = network.both()
    assert server.abandon_path(0, network.now, 0x3E76)
    network.settle()
    for engine in (client, server):
        assert [path.id for path in engine.paths(network.now)] == [second]
    [event] = events_of(network.client, PathAbandoned)
    assert event.code == 0x3E76 and event.by_peer
    exchange(network, 100_000)


def test_data_in_flight_on_an_abandoned_path_arrives_on_another(network: PathNetwork) -> None:
    second = network.open(SECOND)
    client, server = network.both()
    stream = client.open_stream()
    assert stream is not None and network.server is not None
    network.links[FIRST].cut()
    client.write(stream, b"lost at first" * 1000, True)
    network.run(0.01)
    client.abandon_path(0, network.now)
    started = network.now
    network.run(5, lambda: network.server is not None and stream in network.server.ended)
    assert network.server.received[stream] == b"lost at first" * 1000
    assert network.now - started < 0.1
    assert server.address == network.links[SECOND].near and client._data_path.id == second


def test_the_last_path_that_works_is_not_abandoned(network: PathNetwork) -> None:
    client, _ = network.both()
    assert not client.abandon_path(0, network.now)
    network.links[SECOND].cut()
    assert client.open_path(SECOND, network.now) is not None
    assert not client.abandon_path(0, network.now)
    assert not client.abandon_path(99, network.now)


def test_a_path_can_be_abandoned_before_it_is_valid(network: PathNetwork) -> None:
    network.links[SECOND].cut()
    client, server = network.both()
    second = client.open_path(SECOND, network.now)
    assert second is not None
    assert client.abandon_path(second, network.now)
    network.run(3)
    assert second not in client._paths and second not in server._paths
    assert events_of(network.server, PathOpened) == []
    assert network.open(THIRD) == second + 1


def test_a_client_whose_last_path_is_abandoned_opens_another(network: PathNetwork) -> None:
    client, server = network.both()
    server._abandon(server._paths[0], 0, network.now, by_peer=False)
    network.run(0.1)
    assert [path.id for path in client.paths(network.now)] == [1]
    assert client.address == FIRST
    exchange(network, 50_000)


def test_the_peer_hears_of_it_also_when_what_carries_data_is_dead(network: PathNetwork) -> None:
    second = network.open(SECOND)
    client, server = network.both()
    network.links[FIRST].cut()
    assert server.abandon_path(second, network.now)
    network.run(0.1)
    assert [path.id for path in client.paths(network.now)] == [0]
    network.links[FIRST].cut(False)
    exchange(network, 50_000)


def test_a_crossing_that_leaves_no_path_is_told_where_the_peer_was_heard(
    network: PathNetwork,
) -> None:
    """The path that carried data is dead. The client leaves it, and the server the other one."""
    second = network.open(SECOND)
    client, server = network.both()
    network.links[FIRST].cut()
    assert server.abandon_path(second, network.now)
    assert client.abandon_path(0, network.now)
    exchange(network, 50_000)
    assert client.ending is None and server.ending is None
    assert client.address == SECOND and server.address == network.links[SECOND].near
    assert client._data_path.id > second


def test_a_peer_that_opens_and_abandons_without_end_takes_no_memory() -> None:
    network = connected(names=NAMES)
    client, server = network.both()
    for link in network.links.values():
        link.delay(0.3)  # so that abandoned paths drain for seconds
    for turn in range(60):
        client.open_path(NAMES[1 + turn % 10], network.now)
        network.run(0.05)
        for path in client.paths(network.now)[1:]:
            client.abandon_path(path.id, network.now)
    network.run(0.3)
    assert server._highest_used > 20
    for engine in (client, server):
        assert len(engine._live) <= MAX_PATHS + MAX_DRAINING + 2
    exchange(network, 10_000)


def test_sides_that_leave_each_others_path_at_once_meet_again(network: PathNetwork) -> None:
    second = network.open(SECOND)
    client, server = network.both()
    client.abandon_path(0, network.now)
    server.abandon_path(second, network.now)
    network.settle()
    assert not client.is_closing and not server.is_closing
    exchange(network, 50_000)


def test_without_any_path_the_connection_ends(network: PathNetwork) -> None:
    client, server = network.both()
    network.links[FIRST].up.cut = True
    server._abandon(server._paths[0], 0, network.now, by_peer=False)
    network.run(10)
    assert server.ending is not None
    assert server.ending.error_code == PathError.NO_VIABLE_PATH
    assert client.ending == server.ending


def test_the_peer_may_change_the_ids_of_its_paths(network: PathNetwork) -> None:
    second = network.open(SECOND)
    client, server = network.both()
    client.select_path(second)
    network.settle()
    for _ in range(10):
        client.change_connection_id()
        network.settle()
        exchange(network, 20_000)
    assert client._peer_cid.sequence_number == 10
    assert len(server._paths[second].host_ids) == IDS_PER_PATH


def reset_of(network: PathNetwork, path_id: int) -> bytes:
    """A stateless reset that the server would send for packets of the client on a path."""
    client, _ = network.both()
    held = client._peer_id(client._paths[path_id])
    assert held is not None
    return b"\x40" + bytes(30) + held.stateless_reset_token


def test_a_peer_that_forgot_one_path_has_not_forgotten_the_connection(
    network: PathNetwork,
) -> None:
    second = network.open(SECOND)
    client, _ = network.both()
    network.inject(CLIENT, reset_of(network, second), SECOND)
    assert not client.is_closing
    assert [path.id for path in client.paths(network.now)] == [0]
    exchange(network, 20_000)
    third = network.open(THIRD)
    client.select_path(third)
    network.settle()
    network.inject(CLIENT, reset_of(network, third), THIRD)
    assert client.is_terminated and client.was_closed_by_peer


def test_a_peer_that_forgot_a_path_and_does_not_answer_on_the_other_has_forgotten_all(
    network: PathNetwork,
) -> None:
    second = network.open(SECOND)
    client, _ = network.both()
    network.settle()
    reset = reset_of(network, second)
    network.links[FIRST].cut()
    network.links[SECOND].cut()
    network.inject(CLIENT, reset, SECOND)
    assert not client.is_closing
    network.run(3, lambda: client.is_terminated)
    assert client.is_terminated and client.was_closed_by_peer


def test_a_data_path_that_answered_after_a_reset_may_fall_silent_again(
    network: PathNetwork,
) -> None:
    second = network.open(SECOND)
    client, _ = network.both()
    network.inject(CLIENT, reset_of(network, second), SECOND)
    network.settle()
    network.links[FIRST].cut()
    client.send_ping(7)
    network.run(5)
    assert not client.is_closing
    network.links[FIRST].cut(False)
    network.run(5)
    exchange(network, 20_000)


# As without multipath


def test_probing_moves_a_connection_as_without_multipath(network: PathNetwork) -> None:
    client, server = network.both()
    assert not client.probe(FIRST)
    assert client.probe(SECOND)
    assert client.address == FIRST
    network.settle()
    assert client.address == SECOND
    exchange(network, 100_000)
    assert server.address == network.links[SECOND].near
    assert client.probe(FIRST)
    network.settle()
    assert client.address == FIRST


def test_probes_without_an_answer_can_be_ended(network: PathNetwork) -> None:
    client, _ = network.both()
    network.links[SECOND].cut()
    assert client.probe(SECOND)
    client.stop_probing()
    network.settle()
    assert [path.id for path in client.paths(network.now)] == [0]
    network.links[SECOND].cut(False)
    network.settle()
    assert client.address == FIRST
