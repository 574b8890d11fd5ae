"""What the engine tells of its paths, and when."""

from aioquic.quic.events import QuicEvent
from tests.support.engines import exchange
from tests.support.paths import (
    FIRST,
    SECOND,
    PathNetwork,
    connected,
    events_of,
    path_of,
)

from tunnel_rs.proto.path_state import (
    DataPathChanged,
    PathAbandoned,
    PathOpened,
    PathsChanged,
    PathState,
    PathValidated,
)
from tunnel_rs.proto.transport_settings import TransportSettings


def test_before_an_answer_there_is_the_path_that_is_dialled() -> None:
    network = PathNetwork()
    [path] = network.client.engine.paths(network.now)  # type: ignore[attr-defined]
    assert (path.id, path.address, path.is_data) == (0, FIRST, True)


def test_without_multipath_there_is_one_path() -> None:
    network = connected(client_settings=TransportSettings(multipath=False))
    for engine in network.both():
        [path] = engine.paths(network.now)
        assert path.id == 0 and path.is_data and path.is_validated and path.rtt is None


def test_a_path_tells_what_it_has_carried_and_how_fast() -> None:
    network = connected()
    network.links[SECOND].delay(0.030)
    path_id = network.open(SECOND)
    client, server = network.both()
    client.select_path(path_id)
    network.settle()
    exchange(network, 200_000)
    for engine in (client, server):
        path = path_of(engine, path_id, network.now)
        assert path is not None and path.is_data
        assert path.bytes_sent > 200_000 and path.bytes_received > 200_000
        assert path.rtt is not None and abs(path.rtt - 0.060) < 0.002
        assert abs(path.smoothed_rtt - 0.060) < 0.030
        assert path.silent_for < 0.2 and path.ptos == 0


def test_each_step_of_a_paths_life_is_an_event() -> None:
    network = connected()
    path_id = network.open(SECOND)
    client, server = network.both()
    client.select_path(path_id)
    network.settle()
    client.abandon_path(0, network.now, 0x3E)
    network.settle()
    near = network.links[SECOND].near
    first = network.links[FIRST]
    assert events_of(network.server, PathOpened) == [PathOpened(path_id, near)]
    for peer, second, old in (
        (network.client, SECOND, first.far),
        (network.server, near, first.near),
    ):
        [valid] = events_of(peer, PathValidated)
        assert (valid.path_id, valid.address) == (path_id, second) and valid.rtt is not None
        assert events_of(peer, DataPathChanged) == [DataPathChanged(path_id, second)]
        by_peer = peer is network.server
        assert events_of(peer, PathAbandoned) == [PathAbandoned(0, old, 0x3E, by_peer)]
        assert len(events_of(peer, PathsChanged)) >= 3


def test_a_connection_with_one_path_has_no_such_events() -> None:
    network = connected()
    exchange(network, 500_000)
    for peer in (network.client, network.server):
        for kind in (PathOpened, PathValidated, PathAbandoned, DataPathChanged):
            assert events_of(peer, kind) == []
    assert issubclass(PathsChanged, QuicEvent)


def test_a_silent_path_counts_its_timeouts() -> None:
    network = connected()
    path_id = network.open(SECOND)
    network.links[SECOND].cut()
    network.run(8)
    client, _ = network.both()
    path = path_of(client, path_id, network.now)
    assert isinstance(path, PathState)
    assert path.ptos > 0 and path.silent_for > 5
