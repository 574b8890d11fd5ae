"""Relay frames: the vectors of the spec byte for byte, the bounds, and hostile input."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.relay_peers import CHALLENGE, CLIENT_AUTH, ID

from tunnel_rs.proto import relay_frames as f

HELLO = b"Hello World!"
VECTORS_FROM_RELAY = {
    "06" + ID.hex() + "03" + HELLO.hex(): f.Datagrams(ID, 3, 12, memoryview(HELLO)),
    "07" + ID.hex() + "030006" + HELLO.hex(): f.Datagrams(ID, 3, 6, memoryview(HELLO)),
    "08" + ID.hex(): f.EndpointGone(ID),
    "092a2a2a2a2a2a2a2a": f.Ping(b"*" * 8),
    "0a2a2a2a2a2a2a2a2a": f.Pong(b"*" * 8),
    "0c0000000a00000014": f.Restarting(10, 20),
    "0d01": f.Status(f.StatusCode.SAME_ID_ELSEWHERE),
    "0d02": f.Status(f.StatusCode.RATE_LIMITED),
    "0d4d": f.Status(77),
}
HEALTH = bytes.fromhex("0b48656c6c6f3f20596573207468697320697320646f672e")


@pytest.mark.parametrize("text", VECTORS_FROM_RELAY)
def test_the_vectors_from_a_relay_decode_as_specified(text: str) -> None:
    assert f.decode_from_relay(bytes.fromhex(text), 2) == VECTORS_FROM_RELAY[text]


def test_frames_encode_to_the_vectors() -> None:
    assert f.encode_to_relay(ID, HELLO, ecn=3).hex() == "04" + ID.hex() + "03" + HELLO.hex()
    assert f.encode_to_relay(ID, HELLO, 6, 3).hex() == "05" + ID.hex() + "030006" + HELLO.hex()
    assert f.encode_from_relay(ID, HELLO, ecn=3).hex() == "06" + ID.hex() + "03" + HELLO.hex()
    assert f.encode_from_relay(ID, HELLO, 6, 3).hex() == "07" + ID.hex() + "030006" + HELLO.hex()
    assert f.encode_endpoint_gone(ID) == b"\x08" + ID
    assert f.encode_ping(b"*" * 8).hex() == "092a2a2a2a2a2a2a2a"
    assert f.encode_pong(b"*" * 8).hex() == "0a2a2a2a2a2a2a2a2a"
    assert f.encode_health("Hello? Yes this is dog.") == HEALTH
    assert f.encode_restarting(10, 20).hex() == "0c0000000a00000014"
    assert f.encode_status(1).hex() == "0d01"
    assert f.encode_challenge(CHALLENGE) == b"\x00" + CHALLENGE
    assert f.encode_confirmation() == b"\x02"
    assert f.encode_denial("no").hex() == "03026e6f"


def test_client_auth_is_98_bytes_and_survives_the_round_trip() -> None:
    auth = f.decode_client_auth(CLIENT_AUTH)
    assert len(CLIENT_AUTH) == 98 and auth.endpoint_id == ID
    assert f.encode_client_auth(auth) == CLIENT_AUTH


def test_handshake_frames_decode() -> None:
    assert f.decode_handshake(b"\x00" + CHALLENGE) == f.ServerChallenge(CHALLENGE)
    assert f.decode_handshake(b"\x02") == f.ServerConfirmsAuth()
    assert f.decode_handshake(bytes.fromhex("03026e6f")) == f.ServerDeniesAuth("no")


def test_a_long_denial_has_a_length_of_two_bytes_and_is_cut_at_the_bound() -> None:
    message = f.encode_denial("x" * 5000)
    assert message[:3] == b"\x03\x80\x08"
    assert f.decode_handshake(message) == f.ServerDeniesAuth("x" * f.MAX_REASON)


def test_a_type_in_two_bytes_is_the_same_type() -> None:
    assert f.decode_from_client(b"\x40\x09" + bytes(8)) == f.Ping(bytes(8))
    frame = f.decode_from_client(b"\x40\x05" + ID + b"\x00\x00\x06" + HELLO)
    assert isinstance(frame, f.Forward)
    assert f.forwarded(frame, ID) == f.encode_from_relay(ID, HELLO, 6)


def test_what_a_client_sends_is_forwarded_untouched() -> None:
    for segment_size in (0, 5):
        frame = f.decode_from_client(f.encode_to_relay(ID, HELLO, segment_size, 2))
        assert isinstance(frame, f.Forward) and frame.destination == ID and frame.has_payload
        source = bytes(range(32))
        assert f.forwarded(frame, source) == f.encode_from_relay(source, HELLO, segment_size, 2)


def test_a_forward_without_payload_is_seen_as_such() -> None:
    for message in (b"\x04" + ID + b"\x00", b"\x05" + ID + b"\x00\x00\x06"):
        frame = f.decode_from_client(message)
        assert isinstance(frame, f.Forward) and not frame.has_payload


def test_segment_size_zero_means_one_datagram() -> None:
    frame = f.decode_from_relay(b"\x07" + ID + b"\x00\x00\x00" + HELLO, 2)
    assert frame == f.Datagrams(ID, 0, len(HELLO), memoryview(HELLO))


@pytest.mark.parametrize(("size", "accepted"), [(65_503, True), (65_504, False)])
def test_the_largest_body_is_65536_bytes(size: int, accepted: bool) -> None:
    message = b"\x06" + ID + b"\x00" + bytes(size)
    if accepted:
        assert isinstance(f.decode_from_relay(message, 2), f.Datagrams)
    else:
        with pytest.raises(f.FrameError, match="more than 65536"):
            f.decode_from_relay(message, 2)


def test_we_send_no_frame_above_65536_bytes_and_no_empty_one() -> None:
    assert len(f.encode_to_relay(ID, bytes(f.MAX_DATAGRAM))) == 65_536
    assert len(f.encode_to_relay(ID, bytes(f.MAX_BATCH), 1452)) == 65_536
    for size, segment in ((0, 0), (f.MAX_DATAGRAM + 1, 0), (f.MAX_BATCH + 1, 1452)):
        with pytest.raises(ValueError, match="cannot carry"):
            f.encode_to_relay(ID, bytes(size), segment)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\x40",
        b"\xc0\x00",
        b"\x00" + bytes(16),
        b"\x02",
        b"\x03\x00",
        b"\x04" + bytes(40),
        b"\x0e",
        b"\x3f",
        b"\x06" + bytes(32),
        b"\x07" + bytes(34),
        b"\x08" + bytes(31),
        b"\x08" + bytes(33),
        b"\x09" + bytes(7),
        b"\x0a" + bytes(9),
        b"\x0c" + bytes(7),
        b"\x0d",
        HEALTH,
    ],
    ids=lambda message: message[:2].hex() + f"-{len(message)}",
)
def test_everything_else_from_a_relay_of_version_2_is_refused(message: bytes) -> None:
    with pytest.raises(f.FrameError):
        f.decode_from_relay(message, 2)


def test_health_belongs_to_version_1_and_status_to_version_2() -> None:
    assert f.decode_from_relay(HEALTH, 1) == f.Health("Hello? Yes this is dog.")
    with pytest.raises(f.FrameError, match="version 1 does not send"):
        f.decode_from_relay(b"\x0d\x00", 1)
    with pytest.raises(f.FrameError, match="not UTF-8"):
        f.decode_from_relay(b"\x0b\xff", 1)


@pytest.mark.parametrize("kind", [0, 1, 2, 3, 6, 7, 8, 11, 12, 13, 14, 63])
def test_a_client_may_send_datagrams_ping_and_pong_only(kind: int) -> None:
    with pytest.raises(f.FrameError, match=f"type {kind}"):
        f.decode_from_client(bytes([kind]) + bytes(40))


@pytest.mark.parametrize(
    "message", [CLIENT_AUTH[:-1], CLIENT_AUTH + b"\x00", CLIENT_AUTH[:20], b"\x04" + bytes(97)]
)
def test_an_authentication_of_the_wrong_shape_is_refused(message: bytes) -> None:
    with pytest.raises(f.FrameError):
        f.decode_client_auth(message)


@pytest.mark.parametrize(
    "message", [b"\x00" + bytes(15), b"\x00" + bytes(17), b"\x02\x00", b"\x03", b"\x03\xff\xff\xff"]
)
def test_a_handshake_frame_of_the_wrong_shape_is_refused(message: bytes) -> None:
    with pytest.raises(f.FrameError):
        f.decode_handshake(message)


@given(st.binary(max_size=200))
def test_decoders_raise_nothing_but_frame_errors(message: bytes) -> None:
    for decode in (
        f.decode_from_client,
        f.decode_client_auth,
        f.decode_handshake,
        lambda m: f.decode_from_relay(m, 1),
        lambda m: f.decode_from_relay(m, 2),
    ):
        try:
            decode(message)
        except f.FrameError as error:
            assert "\n" not in str(error)


@given(st.sampled_from([*map(bytes.fromhex, VECTORS_FROM_RELAY), CLIENT_AUTH]), st.data())
def test_cut_off_vectors_are_refused_or_are_shorter_datagrams(
    message: bytes, data: st.DataObject
) -> None:
    cut = message[: data.draw(st.integers(0, len(message) - 1))]
    try:
        frame = f.decode_from_relay(cut, 2)
    except f.FrameError:
        return
    assert isinstance(frame, f.Datagrams)
    assert len(frame.contents) < len(HELLO)


@given(
    st.binary(min_size=32, max_size=32),
    st.binary(min_size=1, max_size=4000),
    st.integers(0, 1500),
    st.integers(0, 3),
)
def test_datagrams_survive_the_way_through_a_relay(
    source: bytes, contents: bytes, segment_size: int, ecn: int
) -> None:
    inbound = f.decode_from_client(f.encode_to_relay(ID, contents, segment_size, ecn))
    assert isinstance(inbound, f.Forward)
    outbound = f.decode_from_relay(f.forwarded(inbound, source), 2)
    expected = segment_size if 0 < segment_size < len(contents) else len(contents)
    assert outbound == f.Datagrams(source, ecn, expected, memoryview(contents))
