"""What belongs to one path only, and how paths come and go as the current one."""

import pytest
from tests.support.engines import PAIRS, exchange
from tests.support.paths import FIRST, SECOND, THIRD, PathNetwork, connected


@pytest.fixture(params=PAIRS)
def network(request: pytest.FixtureRequest) -> PathNetwork:
    return connected(request.param)


def test_between_calls_the_data_path_is_current(network: PathNetwork) -> None:
    second = network.open(SECOND)
    client, server = network.both()
    assert client._path.id == server._path.id == 0
    client.select_path(second)
    exchange(network, 50_000)
    assert client._path.id == server._path.id == second


def test_each_path_counts_its_own_packets(network: PathNetwork) -> None:
    exchange(network, 100_000)
    second = network.open(SECOND)
    client, _ = network.both()
    assert client._packet_number > 80
    client.select_path(second)
    assert client._packet_number < 10, "numbers begin at 0 on each path"
    exchange(network, 100_000)
    assert client._packet_number > 80
    before = client._paths[0].context["_packet_number"]
    exchange(network, 100_000)
    assert client._paths[0].context["_packet_number"] <= before + 4


def test_each_path_has_its_own_window_and_round_trip(network: PathNetwork) -> None:
    network.links[SECOND].delay(0.040)
    second = network.open(SECOND)
    exchange(network, 1_000_000)
    client, _ = network.both()
    first = client._recovery
    client.select_path(second)
    assert client._recovery is not first
    assert client.smoothed_rtt > 0.07 and first.smoothed_rtt < 0.03
    assert client._loss.congestion_window < first.congestion_window


def test_going_from_path_to_path_loses_nothing(network: PathNetwork) -> None:
    client, server = network.both()
    paths = [0, network.open(SECOND), network.open(THIRD)]
    for turn in range(9):
        (client if turn % 2 else server).select_path(paths[turn % 3])
        exchange(network, 60_000)
    assert [path.id for path in client.paths(network.now)] == paths


def test_a_path_costs_nothing_before_it_is_used(network: PathNetwork) -> None:
    for engine in network.both():
        idle = [path for path in engine._paths.values() if path.id]
        assert len(idle) == 7
        assert all(path.recovery is None and path.space is None for path in idle)
        assert len(engine._live) == 1


def test_ids_of_a_path_that_is_gone_are_no_ones(network: PathNetwork) -> None:
    second = network.open(SECOND)
    client, server = network.both()
    ids = {id.cid for id in client._paths[second].host_ids}
    assert ids <= client._path_of_id.keys()
    client.abandon_path(second, network.now)
    network.run(5)
    for engine in (client, server):
        assert second not in engine._paths
        assert len(engine._live) == 1
        assert all(path.id != second for path in engine._path_of_id.values())
    assert not ids & client._path_of_id.keys()
    assert network.links[FIRST].far == client.address


def test_datagrams_too_large_for_the_new_path_do_not_hold_up_others(network: PathNetwork) -> None:
    second = network.open(SECOND)
    client, server = network.both()
    exchange(network, 1000)
    client._mtu.restart(1452)
    client._mtu.size = 1452
    client._use_datagram_size()
    stream = client.open_stream()
    assert stream is not None
    client.write(stream, b"!", False)
    network.settle()
    server.take_datagrams()
    client.send_datagrams(stream, [bytes(client.largest_datagram_payload(stream))])
    client.select_path(second)
    client.send_datagrams(stream, [b"small"])
    network.settle()
    assert server.take_datagrams() == {stream: [b"small"]}
