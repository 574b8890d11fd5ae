"""One connection against hostile peers: what they may send, and what becomes of it."""

import random

import pytest
from aioquic import tls
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.engines import (
    PAIRS,
    SERVER,
    Network,
    ending,
    exchange,
    forged,
    payload,
    varint,
)

from tunnel_rs.proto.engine import (
    STRANGER_WINDOW,
)

FLOW_CONTROL_ERROR, STREAM_LIMIT_ERROR, STREAM_STATE_ERROR = 0x3, 0x4, 0x5
FINAL_SIZE_ERROR, FRAME_ENCODING_ERROR, PROTOCOL_VIOLATION = 0x6, 0x7, 0xA
CRYPTO_BUFFER_EXCEEDED = 0xD


# Hostile peers


@pytest.fixture(params=["stock", "fast"])
def connected(request: pytest.FixtureRequest) -> Network:
    """The server is what is attacked."""
    client, server = PAIRS[request.param]
    network = Network(make_engine=client, make_server=server)
    network.connect()
    network.settle()
    return network


def hear(network: Network, frames: bytes) -> tuple[int, str] | None:
    """Let the server receive a packet of `frames`; how it ends, if it does."""
    assert network.server is not None
    network.inject(SERVER, forged(network.client.engine, frames))
    return ending(network.server) if network.server.engine.is_closing else None


def code(network: Network, frames: bytes) -> int | None:
    end = hear(network, frames)
    return end[0] if end else None


def test_an_acknowledgement_of_a_packet_never_sent_is_a_violation(connected: Network) -> None:
    assert connected.server is not None
    number = connected.server.engine._packet_number
    ack = b"\x02" + varint(number) + varint(0) + varint(0) + varint(0)
    assert hear(connected, ack) == (PROTOCOL_VIOLATION, "acknowledges a packet never sent")


def test_an_acknowledgement_of_the_last_packet_sent_is_fine(connected: Network) -> None:
    assert connected.server is not None
    number = connected.server.engine._packet_number - 1
    assert hear(connected, b"\x02" + varint(number) + b"\0\0\0") is None


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        (b"", PROTOCOL_VIOLATION),
        (b"\x21" + bytes(20), FRAME_ENCODING_ERROR),
        (varint(0x4242) + bytes(20), FRAME_ENCODING_ERROR),
        (b"\x40", FRAME_ENCODING_ERROR),
        (b"\x0c", FRAME_ENCODING_ERROR),
        (b"\x0c\x40", FRAME_ENCODING_ERROR),
        (b"\x0c\x00", FRAME_ENCODING_ERROR),
        (b"\x0c\x00\xc0\x00", FRAME_ENCODING_ERROR),
        (b"\x0e\x00\x00\x05abc", FRAME_ENCODING_ERROR),
        (b"\x0e\x00\x00", FRAME_ENCODING_ERROR),
        (b"\x02\x00\x00\x00\x01", FRAME_ENCODING_ERROR),
        (b"\x08\x01" + b"not my stream", STREAM_STATE_ERROR),
        (b"\x08" + varint(4 * 256) + b"too many", STREAM_LIMIT_ERROR),
        (b"\x08\x02" + b"unidirectional", STREAM_LIMIT_ERROR),
        (b"\x0c\x00" + varint(STRANGER_WINDOW) + b"x", FLOW_CONTROL_ERROR),
        (b"\x0c\x00" + varint((1 << 62) - 1) + b"x", FRAME_ENCODING_ERROR),
        (b"\x04\x00\x00" + varint(STRANGER_WINDOW + 1), FLOW_CONTROL_ERROR),
        (b"\x09\x00abc" + b"", None),
        (b"\x1e", PROTOCOL_VIOLATION),
        (b"\x07\x01x", PROTOCOL_VIOLATION),
        (b"\x19\x3f", PROTOCOL_VIOLATION),
        (b"\x06" + varint(65_530) + varint(7) + bytes(7), CRYPTO_BUFFER_EXCEEDED),
        (b"\x12" + varint((1 << 60) + 1), FRAME_ENCODING_ERROR),
    ],
)
def test_a_frame_that_breaks_the_rules_closes_with_the_right_error(
    connected: Network, frames: bytes, expected: int | None
) -> None:
    assert code(connected, frames) == expected
    connected.run(5)
    if expected is not None:
        assert connected.client.engine.is_terminated
        assert ending(connected.client)[0] == expected


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (b"\x0d\x00\x05end", b"\x0c\x00\x08x"),
        (b"\x0d\x00\x05end", b"\x0d\x00\x05en"),
        (b"\x0c\x00\x05more", b"\x0d\x00\x05end"),
        (b"\x04\x00\x00\x05", b"\x0c\x00\x05x"),
        (b"\x0c\x00\x05more", b"\x04\x00\x00\x08"),
        (b"\x0d\x00\x05end", b"\x04\x00\x00\x07"),
    ],
)
def test_a_stream_cannot_change_its_final_size(
    connected: Network, first: bytes, second: bytes
) -> None:
    assert code(connected, first) is None
    assert code(connected, second) == FINAL_SIZE_ERROR


def test_more_than_the_stream_window_is_a_violation(connected: Network) -> None:
    assert connected.server is not None
    connected.server.engine.open_window()
    connected.server.consume = False
    connected.flush()
    assert code(connected, b"\x08\x00x") is None
    for offset in range(1, 1_048_576 - 1000, 1000):
        assert code(connected, b"\x0c\x00" + varint(offset) + bytes(1000)) is None
    assert code(connected, b"\x0c\x00" + varint(1_048_001) + bytes(1000)) == FLOW_CONTROL_ERROR


def test_more_than_the_connection_window_is_a_violation(connected: Network) -> None:
    """In order, and so on the fast path too."""
    assert connected.server is not None
    connected.server.consume = False
    assert code(connected, b"\x08\x00x") is None
    for offset in range(1, STRANGER_WINDOW - 1000, 1000):
        assert code(connected, b"\x0c\x00" + varint(offset) + bytes(1000)) is None
    assert len(connected.server.received[0]) == 65_001
    assert code(connected, b"\x0c\x00" + varint(65_001) + bytes(1000)) == FLOW_CONTROL_ERROR


def test_a_packet_with_reserved_bits_is_a_violation(connected: Network) -> None:
    client = connected.client.engine
    pair = client._cryptos[tls.Epoch.ONE_RTT]
    number = client._packet_number
    header = bytes([0x40 | 0x18 | 1]) + client._peer_cid.cid + number.to_bytes(2, "big")
    connected.inject(SERVER, pair.encrypt_packet(header, b"\x01" + bytes(20), number))
    assert ending(connected.server)[0] == PROTOCOL_VIOLATION


def test_a_replayed_packet_does_nothing(connected: Network) -> None:
    client, server = connected.client, connected.server
    assert server is not None
    said = forged(client.engine, b"\x08\x00" + b"once")
    for _ in range(3):
        connected.inject(SERVER, said)
    assert server.received[0] == b"once"


def test_acknowledgements_name_a_bounded_number_of_ranges(connected: Network) -> None:
    client, server = connected.client, connected.server
    assert server is not None
    number = client.engine._packet_number
    for gap in range(300):
        connected.inject(
            SERVER, forged(client.engine, b"\x01" + bytes(20), number=number + 2 * gap)
        )
    space = server.engine._spaces[tls.Epoch.ONE_RTT]
    assert len(space.ack_queue) <= 64
    client.engine._packet_number = number + 600
    exchange(connected, 1000)


def test_a_flood_of_connection_ids_is_bounded(connected: Network) -> None:
    for sequence in range(8, 40):
        frame = b"\x18" + varint(sequence) + b"\0\x08" + payload(24, sequence)
        if code(connected, frame) is not None:
            break
    assert ending(connected.server)[0] == 0x9  # CONNECTION_ID_LIMIT_ERROR


def random_datagrams() -> st.SearchStrategy[bytes]:
    first = st.sampled_from([0x00, 0x40, 0x43, 0x5F, 0x80, 0xC0, 0xC3, 0xD0, 0xE0, 0xF0, 0xFF])
    version = st.sampled_from([b"", b"\0\0\0\1", b"\0\0\0\0", b"\x6b\x33\x43\xcf", b"\xff\0\0\1"])
    body = st.binary(max_size=300)
    return st.builds(lambda f, v, b: bytes([f]) + v + b, first, version, body)


FUZZ = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@given(datagrams=st.lists(random_datagrams() | st.binary(max_size=100), max_size=8), data=st.data())
@FUZZ
def test_garbage_never_raises(
    connected: Network, datagrams: list[bytes], data: st.DataObject
) -> None:
    assert connected.server is not None
    for garbage in datagrams:
        for peer in (connected.client, connected.server):
            ours = peer.engine.host_cid
            for datagram in (garbage, garbage[:1] + ours + garbage[1:]):
                if datagram:
                    size = data.draw(st.integers(1, len(datagram)))
                    peer.engine.receive(memoryview(datagram), size, SERVER, connected.now)
                    peer.engine.trains(connected.now)
    assert not connected.client.engine.is_closing and not connected.server.engine.is_closing


@given(frames=st.binary(max_size=80))
@FUZZ
def test_sealed_garbage_never_raises(frames: bytes) -> None:
    """The peer has the keys, and no manners."""
    for network in SEALED:
        assert network.server is not None
        network.inject(SERVER, forged(network.client.engine, frames))
        network.server.engine.get_timer()
        if network.server.engine.is_closing:
            network.__init__(make_engine=network._make_server)  # type: ignore[misc]
            network.connect()
            network.settle()


SEALED: list[Network] = []


@pytest.fixture(autouse=True, scope="module")
def sealed() -> None:
    for _, kind in (PAIRS["stock"], PAIRS["fast"]):
        network = Network(make_engine=kind)
        network.connect()
        network.settle()
        SEALED.append(network)


@pytest.mark.parametrize("seed", range(24))
def test_mutated_datagrams_harm_nobody(seed: int) -> None:
    """Each byte that a network damages costs a packet, and nothing else."""
    drawn = random.Random(seed)
    client_kind, server_kind = list(PAIRS.values())[seed % len(PAIRS)]
    network = Network(
        make_engine=client_kind, make_server=server_kind, seed=seed, offload=bool(seed & 4)
    )

    def spoil(to: str, datagram: bytes) -> bytes | None:
        if drawn.random() > 0.1:
            return datagram
        changed = bytearray(datagram)
        for _ in range(drawn.choice([1, 1, 5])):
            changed[drawn.randrange(len(changed))] ^= 1 << drawn.randrange(8)
        cut = drawn.choice([len(changed)] * 3 + [drawn.randrange(1, len(changed) + 1)])
        return bytes(changed[:cut])

    network.spy = spoil
    network.connect()
    exchange(network, 30_000, seconds=300)
