"""Whole connections with paths: NAT traversal, and random networks on a virtual clock."""

import pytest
from tests.support.engines import CLIENT, SERVER, ending, exchange, forged, varint
from tests.support.multipath_runs import run_seed
from tests.support.nat_model import RELAY, Nat, NatNetwork, traversal
from tests.support.paths import SECOND, PathNetwork, connected, data_path, events_of

from tunnel_rs.proto.nat_traversal import MAX_CANDIDATES, AddAddress, ReachOut, RemoveAddress
from tunnel_rs.proto.path_state import PeerMoved
from tunnel_rs.proto.traversal import FrameType, encode
from tunnel_rs.values import SocketAddr

PROTOCOL_VIOLATION, FRAME_ENCODING_ERROR = 0x0A, 0x07
IMPOSSIBLE = {
    (Nat.SYMMETRIC, Nat.SYMMETRIC),
    (Nat.SYMMETRIC, Nat.PORT_RESTRICTED),
    (Nat.PORT_RESTRICTED, Nat.SYMMETRIC),
}
"""Nobody knows the port that a symmetric NAT will use, and the other side must know it."""

SEEDS = 1000
CHUNK = 50


def joined(client: Nat = Nat.OPEN, server: Nat = Nat.OPEN, **options: object) -> NatNetwork:
    network = NatNetwork(client, server, **options)
    network.connect()
    network.know_each_other()
    return network


def settle_direct(network: NatNetwork, seconds: float) -> bool:
    """Whether both sides have a valid direct path within the time."""
    network.run(
        seconds,
        lambda: (
            network.direct_path() is not None and network.direct_path(network.server) is not None
        ),
    )
    return network.direct_path() is not None


# NAT traversal


@pytest.mark.parametrize("server", Nat)
@pytest.mark.parametrize("client", Nat)
def test_a_direct_path_is_found_wherever_there_is_one(client: Nat, server: Nat) -> None:
    network = joined(client, server)
    network.tell_candidates()
    possible = (client, server) not in IMPOSSIBLE
    assert settle_direct(network, 15.0) == possible
    engine, other = network.both()
    if possible:
        direct = network.direct_path()
        assert direct is not None
        assert engine.address == RELAY, "it is a backup until it is chosen"
        engine.select_path(direct)
        network.settle()
        before = network.sent[SERVER]
        exchange(network, 50_000)
        assert network.sent[SERVER] == before
    else:
        exchange(network, 50_000)
    assert not engine.is_closing and not other.is_closing


def test_a_direct_path_is_there_soon_after_the_candidates() -> None:
    network = joined(Nat.PORT_RESTRICTED, Nat.PORT_RESTRICTED)
    network.tell_candidates()
    started = network.now
    assert settle_direct(network, 5.0)
    assert network.now - started < 0.2


def test_candidates_known_before_the_handshake_are_told_after_it() -> None:
    network = NatNetwork(Nat.PORT_RESTRICTED, Nat.PORT_RESTRICTED)
    client = network.client.engine
    client.set_candidates(network.hosts[CLIENT].candidates(), network.now)  # type: ignore[attr-defined]
    network.connect()
    network.know_each_other()
    network.both()[1].set_candidates(network.hosts[SERVER].candidates(), network.now)
    assert settle_direct(network, 5.0)


def test_a_lossy_network_only_takes_longer() -> None:
    found = 0
    for seed in range(10):
        network = joined(Nat.PORT_RESTRICTED, Nat.PORT_RESTRICTED, seed=seed)
        network.direct.loss = 0.25
        network.relay.lose(0.1)
        network.tell_candidates()
        found += settle_direct(network, 15.0)
    assert found == 10


def on_a_direct_path() -> NatNetwork:
    """Both behind NATs that restrict by port, and data on the path through them."""
    network = joined(Nat.PORT_RESTRICTED, Nat.PORT_RESTRICTED)
    network.tell_candidates()
    assert settle_direct(network, 5.0)
    client, _ = network.both()
    direct = network.direct_path()
    assert direct is not None
    client.select_path(direct)
    network.settle()
    return network


def test_a_rebound_nat_is_gone_through_again() -> None:
    network = on_a_direct_path()
    network.hosts[CLIENT].rebind()
    network.hosts[SERVER].rebind()
    network.run(3)
    exchange(network, 20_000)
    network.tell_candidates()
    network.both()[0].network_changed(network.now)
    network.run(1)
    assert settle_direct(network, 10.0)
    exchange(network, 20_000)


@pytest.mark.parametrize("seconds", [10.0, 30.0, 60.0, 90.0])
def test_udp_that_was_blocked_for_a_while_is_found_again(seconds: float) -> None:
    network = on_a_direct_path()
    began, network.direct.cut = network.now, True
    exchange(network, 20_000)
    assert network.direct_path() is None
    network.run(began + seconds - network.now)
    network.direct.cut = False
    assert settle_direct(network, 11.0)


def test_without_the_extension_nothing_is_probed() -> None:
    network = joined(client_traversal=None)
    client, server = network.both()
    assert client.is_multipath and not client.has_nat_traversal and not server.has_nat_traversal
    network.tell_candidates()
    network.run(10)
    assert network.direct_bytes == 0
    exchange(network, 20_000)


def test_a_side_hears_that_the_other_has_moved() -> None:
    network = joined()
    network.tell_candidates()
    assert settle_direct(network, 5.0)
    network.settle()
    client, server = network.both()
    for mover, peer in ((client, network.server), (server, network.client)):
        known = len(events_of(peer, PeerMoved))
        mover.set_candidates([SocketAddr("192.0.2.77", 1)], network.now)
        network.run(1)
        assert len(events_of(peer, PeerMoved)) == known + 1


def test_a_direct_path_is_found_to_an_address_that_only_the_clients_user_knows() -> None:
    network = joined()
    client, _ = network.both()
    assert not settle_direct(network, 10.0)
    client.set_given([network.hosts[SERVER].private])
    assert settle_direct(network, 5.0)


def test_addresses_given_before_the_handshake_are_probed_after_it() -> None:
    network = NatNetwork(Nat.OPEN, Nat.OPEN)
    network.client.engine.set_given([network.hosts[SERVER].private])  # type: ignore[attr-defined]
    network.connect()
    network.know_each_other()
    assert settle_direct(network, 5.0)


def test_addresses_come_and_go() -> None:
    network = joined()
    client, server = network.both()
    first = network.hosts[SERVER].private
    server.set_candidates([first, SocketAddr("192.0.2.77", 1)], network.now)
    network.settle()
    rounds = client._client_rounds
    assert rounds is not None and len(rounds._peers) == 2
    server.set_candidates([first], network.now)
    network.settle()
    assert list(rounds._peers.values()) == [first]


def test_probes_are_small_and_do_not_move_the_connection() -> None:
    network = joined()
    client, server = network.both()
    client.set_candidates([network.hosts[CLIENT].private], network.now)
    server.set_candidates([network.hosts[SERVER].private], network.now)
    sizes: list[int] = []
    route = network.route

    def watch(to: str, datagram: bytes, address: object) -> None:
        if isinstance(address, SocketAddr):
            sizes.append(len(datagram))
        route(to, datagram, address)

    network.route = watch  # type: ignore[method-assign]
    network.run(0.06)
    assert sizes and sizes[0] < 50
    assert client.address == RELAY and server.address == network.relay.near


def test_a_stranger_is_told_nothing_and_has_nothing_sent() -> None:
    """Anybody may open a connection. Whether he is welcome the application decides later."""
    network = NatNetwork(Nat.OPEN, Nat.OPEN)
    network.connect()
    network.tell_candidates()
    before = network.direct_bytes
    network.run(2)
    client, server = network.both()
    rounds = client._client_rounds
    assert rounds is not None and not rounds._peers
    assert network.direct_bytes == before
    server.open_window()
    assert settle_direct(network, 5.0)


# Violations


def hear(network: PathNetwork, frames: bytes, to: str = SERVER) -> int | None:
    client, server = network.both()
    sender, peer = (client, network.server) if to == SERVER else (server, network.client)
    link = next(iter(network.links.values()))
    assert peer is not None
    network.inject(to, forged(sender, frames), link.near if to == SERVER else link.far)
    return ending(peer)[0] if peer.engine.is_closing else None


def framed(frame: AddAddress | RemoveAddress | ReachOut) -> bytes:
    kind, content = encode(frame)
    return varint(kind) + content


ADDRESS = SocketAddr("192.0.2.7", 4444)


@pytest.mark.parametrize(
    ("frame", "to"),
    [
        (AddAddress(0, ADDRESS), SERVER),
        (AddAddress(0, SocketAddr("2001:db8::1", 1)), SERVER),
        (RemoveAddress(0), SERVER),
        (ReachOut(1, ADDRESS), CLIENT),
        (ReachOut(1, SocketAddr("2001:db8::1", 1)), CLIENT),
    ],
)
def test_frames_of_the_other_side_are_violations(
    frame: AddAddress | RemoveAddress | ReachOut, to: str
) -> None:
    assert hear(joined(), framed(frame), to) == PROTOCOL_VIOLATION


def test_a_round_of_too_many_addresses_is_a_violation() -> None:
    network = joined()
    addresses = [SocketAddr("192.0.2.9", 1 + n) for n in range(MAX_CANDIDATES + 1)]
    for address in addresses[:-1]:
        assert hear(network, framed(ReachOut(1, address))) is None
    assert hear(network, framed(ReachOut(2, addresses[-1]))) is None, "another round"
    network = joined()
    for address in addresses[:-1]:
        assert hear(network, framed(ReachOut(1, address))) is None
    assert hear(network, framed(ReachOut(1, addresses[-1]))) == PROTOCOL_VIOLATION


@pytest.mark.parametrize("kind", FrameType)
def test_cut_off_frames_are_malformed(kind: FrameType) -> None:
    to = SERVER if kind in (FrameType.REACH_OUT_V4, FrameType.REACH_OUT_V6) else CLIENT
    assert hear(joined(), varint(kind), to) == FRAME_ENCODING_ERROR


def test_frames_without_the_extension_are_unknown() -> None:
    assert hear(connected(), framed(ReachOut(1, ADDRESS))) == FRAME_ENCODING_ERROR


@pytest.mark.parametrize(
    "address",
    [
        "224.0.0.1",
        "255.255.255.255",
        "0.0.0.0",
        "127.0.0.1",
        "ff02::1",
        "::ffff:192.0.2.1",
        "fe80::1",
    ],
)
def test_a_peer_cannot_have_us_send_where_no_peer_is(address: str) -> None:
    network = joined()
    frames = framed(ReachOut(1, SocketAddr(address, 9))) + framed(
        ReachOut(1, SocketAddr("192.0.2.9", 0))
    )
    assert hear(network, frames) is None
    network.run(5)
    assert network.direct_bytes == 0
    assert network.both()[1]._server_rounds is not None


def test_what_a_peer_makes_us_send_is_bounded() -> None:
    """Rounds upon rounds of addresses, as fast as a peer can."""
    network = joined()
    _, server = network.both()
    sent = 0
    started = network.now
    for number in range(1, 200):
        frames = b"".join(
            framed(ReachOut(number, SocketAddr("192.0.2.9", 1 + n))) for n in range(MAX_CANDIDATES)
        )
        server.receive(
            memoryview(forged(network.client.engine, frames)), 1200, network.relay.near, network.now
        )
        sent += sum(isinstance(to, SocketAddr) for _, _, to in server.trains(network.now))
        network.now += 0.05
    assert not server.is_closing
    assert 0 < sent < 64 + 60 * (network.now - started)


def test_a_probe_is_answered_with_at_most_three_times_its_size() -> None:
    network = joined()
    client, server = network.both()
    probe = forged(server, b"\x1aquestion")
    client.receive(memoryview(probe), len(probe), ADDRESS, network.now)
    [(data, _, to)] = [train for train in client.trains(network.now) if train[2] == ADDRESS]
    assert to == ADDRESS and len(probe) < len(data) <= 3 * len(probe)
    _, frames, _ = server._keys.open(bytes(data), 9, client._packet_number - 1, 0)
    assert frames.startswith(b"\x1bquestion\x1a"), "a client challenges back"


def test_an_answer_from_elsewhere_opens_no_path() -> None:
    network = joined(Nat.PORT_RESTRICTED, Nat.OPEN)
    client, server = network.both()
    server.set_candidates([network.hosts[SERVER].private], network.now)
    network.direct.cut = True
    network.run(1)
    rounds = client._client_rounds
    assert rounds is not None
    token = next(iter(rounds._probing._tokens))
    answer = forged(server, b"\x1b" + token)
    client.receive(memoryview(answer), len(answer), SocketAddr("198.51.100.66", 6), network.now)
    assert len(client.paths(network.now)) == 1


# Random networks


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_nothing_is_lost_in_random_networks(first: int) -> None:
    for seed in range(first, first + CHUNK):
        run_seed(seed)


def test_a_run_is_the_same_each_time() -> None:
    assert run_seed(7) == run_seed(7)


def test_paths_are_the_sides_own_choice() -> None:
    network = connected()
    second = network.open(SECOND)
    client, server = network.both()
    server.select_path(second)
    assert data_path(server, network.now) == second
    assert data_path(client, network.now) == 0
    assert traversal(1).random_bytes(4) == traversal(1).random_bytes(4)
