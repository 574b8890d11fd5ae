"""What a peer may say of paths, and each rule whose breach closes the connection."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.engines import CLIENT, SERVER, ending, exchange, forged, varint
from tests.support.paths import FIRST, SECOND, PathNetwork, connected, path_of

from tunnel_rs.proto.multipath import MultipathEngine
from tunnel_rs.proto.multipath_frames import (
    FrameType,
    MultipathParameters,
    NewConnectionId,
    encode_numbers,
)
from tunnel_rs.proto.nat_traversal import MAX_CANDIDATES
from tunnel_rs.proto.path_life import IDS_PER_PATH, MAX_PATHS
from tunnel_rs.proto.transport_settings import TransportSettings

FRAME_ENCODING_ERROR, TRANSPORT_PARAMETER_ERROR = 0x07, 0x08
CONNECTION_ID_LIMIT_ERROR, PROTOCOL_VIOLATION = 0x09, 0x0A
TOO_HIGH = MAX_PATHS
HUGE = 1 << 40


@pytest.fixture(params=["stock", "fast"])
def network(request: pytest.FixtureRequest) -> PathNetwork:
    return connected(request.param)


def frame(kind: int, *values: int, rest: bytes = b"") -> bytes:
    return varint(kind) + encode_numbers(*values) + rest


def new_id(path_id: int, sequence: int, retire: int = 0, size: int = 8) -> bytes:
    made = NewConnectionId(path_id, sequence, retire, bytes([sequence & 255]) * size, bytes(16))
    return varint(FrameType.PATH_NEW_CONNECTION_ID) + made.encode()


def hear(network: PathNetwork, frames: bytes, to: str = SERVER) -> int | None:
    """Let one side receive a packet of `frames` on the first path; how that ends, if it does."""
    client, server = network.both()
    sender, peer = (client, network.server) if to == SERVER else (server, network.client)
    origin = network.links[FIRST].near if to == SERVER else network.links[FIRST].far
    assert peer is not None
    network.inject(to, forged(sender, frames), origin)
    return ending(peer)[0] if peer.engine.is_closing else None


@pytest.mark.parametrize("to", [SERVER, CLIENT])
@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        # A path that was never used, or that we did not allow.
        (frame(FrameType.PATH_ACK, 1, 0, 0, 0, 0), PROTOCOL_VIOLATION),
        (frame(FrameType.PATH_ACK, TOO_HIGH, 0, 0, 0, 0), PROTOCOL_VIOLATION),
        (frame(FrameType.PATH_ACK_ECN, 1, 0, 0, 0, 0, 0, 0, 0), PROTOCOL_VIOLATION),
        (frame(FrameType.PATH_ABANDON, TOO_HIGH, 0), PROTOCOL_VIOLATION),
        (frame(FrameType.PATH_ABANDON, HUGE, 0), PROTOCOL_VIOLATION),
        (frame(FrameType.PATH_STATUS_BACKUP, TOO_HIGH, 1), PROTOCOL_VIOLATION),
        (frame(FrameType.PATH_STATUS_AVAILABLE, TOO_HIGH, 1), PROTOCOL_VIOLATION),
        (new_id(TOO_HIGH, 0), PROTOCOL_VIOLATION),
        (frame(FrameType.PATH_RETIRE_CONNECTION_ID, TOO_HIGH, 0), PROTOCOL_VIOLATION),
        (frame(FrameType.PATH_CIDS_BLOCKED, TOO_HIGH, 0), PROTOCOL_VIOLATION),
        (frame(FrameType.PATHS_BLOCKED, TOO_HIGH), PROTOCOL_VIOLATION),
        # Packets and ids that do not exist.
        (frame(FrameType.PATH_ACK, 0, 100_000, 0, 0, 0), PROTOCOL_VIOLATION),
        (frame(FrameType.PATH_RETIRE_CONNECTION_ID, 1, IDS_PER_PATH), PROTOCOL_VIOLATION),
        (frame(FrameType.PATH_CIDS_BLOCKED, 1, IDS_PER_PATH + 1), PROTOCOL_VIOLATION),
        (frame(FrameType.MAX_PATH_ID, 1 << 32), PROTOCOL_VIOLATION),
        (new_id(1, 2, retire=3), PROTOCOL_VIOLATION),
        # Malformed ones.
        (new_id(1, 2, size=0), FRAME_ENCODING_ERROR),
        (new_id(1, 2, size=21), FRAME_ENCODING_ERROR),
        (new_id(1, 2)[:-1], FRAME_ENCODING_ERROR),
        (frame(FrameType.PATH_ACK, 0, 0, 0, 1), FRAME_ENCODING_ERROR),
        (frame(FrameType.PATH_ACK, 0, 1, 0, 0, 5), FRAME_ENCODING_ERROR),
        (frame(FrameType.PATH_ACK_ECN, 0, 0, 0, 0, 0, 1), FRAME_ENCODING_ERROR),
        (frame(FrameType.PATH_ABANDON, 1), FRAME_ENCODING_ERROR),
        (varint(FrameType.MAX_PATH_ID), FRAME_ENCODING_ERROR),
        (varint(FrameType.MAX_PATH_ID)[:1], FRAME_ENCODING_ERROR),
        (varint(0x3E7D) + bytes(8), FRAME_ENCODING_ERROR),
        # What was not negotiated: OBSERVED_ADDRESS, ADD_ADDRESS, REACH_OUT.
        (varint(0x9F81A6) + bytes(7), FRAME_ENCODING_ERROR),
        (varint(0x3D7F90) + bytes(7), FRAME_ENCODING_ERROR),
        (varint(0x3D7F92) + bytes(7), FRAME_ENCODING_ERROR),
        (b"", PROTOCOL_VIOLATION),
        # What is allowed.
        (frame(FrameType.PATH_STATUS_BACKUP, 1, 1), None),
        (frame(FrameType.PATH_STATUS_AVAILABLE, MAX_PATHS - 1, 7), None),
        (frame(FrameType.PATH_CIDS_BLOCKED, 1, IDS_PER_PATH), None),
        (frame(FrameType.PATHS_BLOCKED, MAX_PATHS - 1), None),
        (frame(FrameType.PATH_RETIRE_CONNECTION_ID, 1, 0), None),
        (frame(FrameType.MAX_PATH_ID, 3), None),
        (frame(FrameType.PATH_ABANDON, 3, 0x3E), None),
        (new_id(7, 3), None),
        (b"\x1b" + bytes(8), None),
    ],
)
def test_each_rule_has_its_error(
    to: str, frames: bytes, expected: int | None, network: PathNetwork
) -> None:
    assert hear(network, frames, to) == expected
    network.settle()
    if expected is not None:
        assert ending(network.client)[0] == ending(network.server)[0] == expected
    else:
        exchange(network, 20_000)


def test_too_many_ids_for_a_path_are_an_error(network: PathNetwork) -> None:
    assert hear(network, b"".join(new_id(1, number) for number in range(2, 8))) is None
    assert hear(network, new_id(1, 8)) == CONNECTION_ID_LIMIT_ERROR


def test_ids_that_come_and_go_without_end_are_an_error(network: PathNetwork) -> None:
    """Each is retired at once, and none of the retirements is acknowledged."""
    network.links[FIRST].down.cut = True
    _, server = network.both()
    server._loss._cc.congestion_window = 1000
    codes = (hear(network, new_id(1, number, retire=number)) for number in range(2, 2000))
    assert next((code for code in codes if code is not None), None) is not None
    assert len(server._queue) <= 512


def test_the_first_id_of_a_path_may_come_late_and_out_of_order(network: PathNetwork) -> None:
    _, server = network.both()
    server._new_path(6).context["_peer_cid_available"].clear()
    assert hear(network, new_id(6, 1)) is None
    held = server._paths[6].context["_peer_cid"]
    assert held.sequence_number == 1
    assert hear(network, new_id(6, 0)) is None
    assert server._paths[6].context["_peer_cid"] is held


def test_what_is_said_of_a_path_that_is_gone_is_ignored(network: PathNetwork) -> None:
    second = network.open(SECOND)
    client, server = network.both()
    client.abandon_path(second, network.now)
    network.run(5)
    for gone in (
        frame(FrameType.PATH_ACK, second, 5, 0, 1, 1, 0, 0),
        frame(FrameType.PATH_ACK_ECN, second, 5, 0, 0, 0, 1, 1, 1),
        frame(FrameType.PATH_STATUS_AVAILABLE, second, 9),
        frame(FrameType.PATH_ABANDON, second, 0),
        new_id(second, 9),
        frame(FrameType.PATH_RETIRE_CONNECTION_ID, second, 0),
        frame(FrameType.PATH_CIDS_BLOCKED, second, 0),
    ):
        assert hear(network, gone + b"\x01") is None
    assert second not in server._paths
    assert hear(network, frame(FrameType.PATH_ACK, second, 5, 0, 0, 9)) == FRAME_ENCODING_ERROR


def test_plain_frames_speak_of_the_first_path(network: PathNetwork) -> None:
    """An endpoint may go on to use ACK, NEW_CONNECTION_ID and RETIRE_CONNECTION_ID."""
    second = network.open(SECOND)
    client, server = network.both()
    client.select_path(second)
    network.settle()
    first = server._paths[0]
    latest = first.context["_packet_number"] - 1
    origin = network.links[SECOND].near
    plain = b"\x18\x0a\x02\x08" + b"newid no" + bytes(16)
    ack = b"\x02" + varint(latest) + b"\x00\x00\x00"
    network.inject(SERVER, forged(client, ack + plain + b"\x19\x01"), origin)
    assert not server.is_closing
    held = first.context["_peer_cid_available"]
    assert b"newid no" in [each.cid for each in held]
    assert all(each.sequence_number != 1 for each in first.context["_host_cids"])
    client.abandon_path(0, network.now)
    network.run(5)
    network.inject(SERVER, forged(client, ack + plain + b"\x19\x01\x01"), origin)
    assert not server.is_closing
    exchange(network, 20_000)


def test_frames_of_paths_are_unknown_when_they_were_not_agreed_on() -> None:
    network = connected(server_settings=TransportSettings(multipath=False))
    assert hear(network, frame(FrameType.MAX_PATH_ID, 9)) == FRAME_ENCODING_ERROR


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        (b"\x3e\x01\x07\x3e\x01\x07", TRANSPORT_PARAMETER_ERROR),
        (MultipathParameters(1 << 32).encode(), TRANSPORT_PARAMETER_ERROR),
        (b"\xc0\x00\x3d\x7f\x91\x12\x04\x01\x01\x00", TRANSPORT_PARAMETER_ERROR),
    ],
)
def test_parameters_that_break_the_rules_end_the_handshake(
    parameters: bytes, expected: int
) -> None:
    network = PathNetwork(
        client_settings=TransportSettings(multipath=False), make_engine=saying(parameters)
    )
    network.run(5)
    assert network.server is not None
    assert ending(network.client)[0] == expected


def saying(parameters: bytes) -> type[MultipathEngine]:
    """An engine that adds transport parameters as a client."""

    class Saying(MultipathEngine):
        def _serialize_transport_parameters(self) -> bytes:
            said = super()._serialize_transport_parameters()
            return said + parameters if self._is_client else said

    return Saying


def test_a_peer_that_allows_one_path_has_one() -> None:
    class OnePath(MultipathEngine):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._local_max_path = 0

    network = connected(make_server=OnePath)
    client, server = network.both()
    assert client.is_multipath and server.is_multipath
    assert client.open_path(SECOND, network.now) is None
    network.settle()
    exchange(network, 50_000)
    assert not client._path_of_id and not server._path_of_id


def test_reserved_bits_and_other_paths_keys_are_of_no_use(network: PathNetwork) -> None:
    """A packet with the id of one path, sealed for another, is dropped."""
    second = network.open(SECOND)
    client, server = network.both()
    packet = bytearray(forged(client, b"\x01"))
    packet[1:9] = server._paths[second].host_ids[0].cid
    before = path_of(server, second, network.now)
    network.inject(SERVER, bytes(packet), network.links[SECOND].near)
    after = path_of(server, second, network.now)
    assert before is not None and after is not None
    assert server._paths[second].heard_at <= network.now - before.silent_for
    assert not server.is_closing


def any_frames() -> st.SearchStrategy[bytes]:
    kinds = st.sampled_from([*FrameType, 0x02, 0x18, 0x19, 0x1A, 0x1B, 0x01])
    numbers = st.lists(st.integers(0, 12) | st.integers(0, 1 << 40), max_size=8)
    made = st.builds(lambda kind, values: frame(kind, *values), kinds, numbers)
    ids = st.builds(new_id, st.integers(0, 9), st.integers(0, 20), st.integers(0, 5))
    return st.lists(made | ids | st.binary(max_size=12), max_size=6).map(b"".join)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(packets=st.lists(any_frames(), max_size=6), to_server=st.booleans())
def test_whatever_a_peer_says_it_is_understood_or_closed(
    packets: list[bytes], to_server: bool
) -> None:
    network = connected()
    network.open(SECOND)
    code = None
    for frames in packets:
        code = hear(network, frames, SERVER if to_server else CLIENT)
        if code is not None:
            break
    network.run(3)
    for engine in network.both():
        assert len(engine._paths) <= 2 * MAX_PATHS + 1
        assert len(engine._queue) <= 512
    assert MAX_CANDIDATES == 32
