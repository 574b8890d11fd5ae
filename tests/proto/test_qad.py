from ipaddress import ip_address

import pytest
from aioquic._buffer import Buffer, BufferReadError
from aioquic.buffer import encode_uint_var
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.relay_peers import make_certificate

from tunnel_rs.proto.qad import (
    BOTH,
    FINISHED,
    FRAME_IPV4,
    FRAME_IPV6,
    SENDS_REPORTS,
    WANTS_REPORTS,
    Observation,
    QadClient,
    QadServer,
    ServerIdentity,
    Trust,
    decode_observation,
    decode_role,
    encode_observation,
    encode_role,
)
from tunnel_rs.values import SocketAddr

PEM, KEY = make_certificate("localhost")
IDENTITY = ServerIdentity.from_pem(PEM, KEY)
HERE, ELSEWHERE, SERVER = ("192.0.2.1", 1000), ("192.0.2.9", 9), ("192.0.2.2", 7842)
ADDRESSES = st.builds(
    SocketAddr,
    st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))
    .map(lambda ip: getattr(ip, "ipv4_mapped", None) or ip)
    .map(str),
    st.integers(0, 65_535),
)


class Pair:
    """A client and a server in memory; `path` is where the server sees the client."""

    def __init__(self, name: str = "localhost", trust: Trust | None = None) -> None:
        self.client = QadClient(name, trust or Trust(pem=PEM))
        self.now = 0.0
        self.path = HERE
        self.client.connect(SERVER, self.now)
        self.server = QadServer(
            IDENTITY,
            to_value=lambda address: SocketAddr(*address),
            original_destination_connection_id=self.client.original_destination_connection_id,
        )

    def turn(self) -> None:
        """Carry datagrams there and back until nobody says anything more."""
        for _ in range(50):
            self.now += 0.001
            forth = self.client.datagrams_to_send(self.now)
            for data, _ in forth:
                self.server.receive_datagram(data, self.path, self.now)
            self.server.process()
            back = self.server.datagrams_to_send(self.now)
            for data, _ in back:
                self.client.receive_datagram(data, SERVER, self.now)
            self.client.process()
            if not forth and not back:
                return
        raise AssertionError("they never stop talking")

    def time(self, seconds: float) -> None:
        until = self.now + seconds
        for _ in range(1000):
            due = [t for t in (self.client.get_timer(), self.server.get_timer()) if t is not None]
            if not due or min(due) > until:
                break
            self.now = max(self.now, min(due))
            for side in (self.client, self.server):
                timer = side.get_timer()
                if timer is not None and timer <= self.now:
                    side.handle_timer(self.now)
            self.turn()
        self.now = until


# Codecs


def test_an_observation_looks_as_in_the_specification() -> None:
    frame_type, body = encode_observation(Observation(3, SocketAddr("192.0.2.1", 0x1234)))
    assert (frame_type, body.hex()) == (0x9F81A6, "03c00002011234")
    assert encode_uint_var(frame_type).hex() == "809f81a6"
    frame_type, body = encode_observation(Observation(64, SocketAddr("2001:db8::1", 80)))
    assert (frame_type, body.hex()) == (0x9F81A7, "404020010db80000000000000000000000010050")


def test_the_parameter_looks_as_in_the_specification() -> None:
    assert encode_role(WANTS_REPORTS).hex() == "c00000009f81a1760101"


@given(st.integers(0, 2**62 - 1), ADDRESSES)
def test_what_is_encoded_is_decoded(sequence: int, address: SocketAddr) -> None:
    observation = Observation(sequence, address)
    frame_type, body = encode_observation(observation)
    buffer = Buffer(data=body)
    assert decode_observation(frame_type, buffer) == observation
    assert buffer.eof()


@given(st.sampled_from([FRAME_IPV4, FRAME_IPV6]), st.binary(max_size=40))
def test_any_bytes_are_an_observation_or_cut_off(frame_type: int, body: bytes) -> None:
    try:
        found = decode_observation(frame_type, Buffer(data=body))
    except BufferReadError:
        return
    assert ip_address(found.address.ip)


def test_an_ipv4_mapped_address_becomes_ipv4() -> None:
    mapped = Observation(0, SocketAddr("::ffff:192.0.2.1", 5))
    plain = Observation(0, SocketAddr("192.0.2.1", 5))
    assert encode_observation(mapped) == encode_observation(plain)
    body = b"\0" + ip_address("::ffff:192.0.2.1").packed + b"\0\5"
    assert decode_observation(FRAME_IPV6, Buffer(data=body)) == plain


@given(st.binary(max_size=100))
def test_any_parameters_have_a_role_or_none_or_are_refused(data: bytes) -> None:
    try:
        assert decode_role(data) in (None, SENDS_REPORTS, WANTS_REPORTS, BOTH)
    except ValueError:
        pass


@pytest.mark.parametrize("value", ["", "03", "0100", "4001"])
def test_a_role_that_is_none_is_refused_or_read(value: str) -> None:
    data = bytes.fromhex("c00000009f81a176") + bytes([len(value) // 2]) + bytes.fromhex(value)
    if value == "4001":  # 1 in two bytes: unusual, but a varint
        assert decode_role(data) == WANTS_REPORTS
        return
    with pytest.raises(ValueError):
        decode_role(data)


# Connections


def test_a_server_tells_a_client_its_address() -> None:
    pair = Pair()
    pair.turn()
    pair.time(0.1)
    assert pair.client.observation == Observation(0, SocketAddr(*HERE))
    assert pair.client.round_trip is not None and pair.client.has_heard
    assert (pair.client.peer_role, pair.server.peer_role) == (SENDS_REPORTS, WANTS_REPORTS)


def test_a_lost_report_is_sent_again() -> None:
    pair = Pair()
    while not pair.server.is_established:
        pair.now += 0.001
        for data, _ in pair.client.datagrams_to_send(pair.now):
            pair.server.receive_datagram(data, pair.path, pair.now)
        if pair.server.is_established:
            break
        for data, _ in pair.server.datagrams_to_send(pair.now):
            pair.client.receive_datagram(data, SERVER, pair.now)
    pair.server.process()
    lost = pair.server.datagrams_to_send(pair.now)
    assert lost and pair.client.observation is None
    pair.time(3)
    assert pair.client.observation == Observation(0, SocketAddr(*HERE))


def test_a_client_that_moves_is_told_its_new_address() -> None:
    pair = Pair()
    pair.turn()
    pair.time(0.1)
    pair.path = ELSEWHERE
    pair.client.send_ping(1)
    pair.turn()
    pair.time(3)
    assert pair.client.observation == Observation(1, SocketAddr(*ELSEWHERE))


def test_an_older_report_does_not_replace_a_newer_one() -> None:
    pair = Pair()
    pair.client._observed(Observation(5, SocketAddr("192.0.2.5", 5)))
    pair.client._observed(Observation(4, SocketAddr("192.0.2.4", 4)))
    assert pair.client.observation == Observation(5, SocketAddr("192.0.2.5", 5))


@pytest.mark.parametrize(
    ("name", "trust", "reason"),
    [
        ("other.example", Trust(pem=PEM), "doesn't match"),
        ("localhost", Trust(pem=make_certificate("localhost")[0]), "certificate"),
    ],
)
def test_a_certificate_that_is_not_the_servers_ends_it(
    name: str, trust: Trust, reason: str
) -> None:
    pair = Pair(name, trust)
    pair.turn()
    assert pair.client.ending is not None and reason in pair.client.ending.reason_phrase
    assert pair.client.observation is None


def test_the_client_says_when_it_has_finished() -> None:
    pair = Pair()
    pair.turn()
    pair.time(0.1)
    pair.client.finish()
    pair.turn()
    ending = pair.server.ending
    assert ending is not None
    assert (ending.error_code, ending.reason_phrase) == (FINISHED, "finished")
    pair.time(5)
    assert pair.server.is_terminated and pair.client.is_terminated


def test_streams_are_not_allowed() -> None:
    pair = Pair()
    pair.turn()
    pair.time(0.1)
    pair.client._remote_max_streams_bidi = 10
    pair.client._remote_max_data = pair.client._remote_max_stream_data_bidi_remote = 1000
    pair.client.send_stream_data(0, b"x")
    pair.turn()
    ending = pair.server.ending
    assert ending is not None and ending.error_code == 4  # STREAM_LIMIT_ERROR


def test_a_server_does_not_take_reports() -> None:
    pair = Pair()
    pair.turn()
    pair.time(0.1)
    frame_type, body = encode_observation(Observation(0, SocketAddr("192.0.2.1", 1)))
    write = pair.client._write_connection_limits

    def with_report(builder: object, space: object) -> None:
        write(builder=builder, space=space)  # type: ignore[arg-type]
        builder.start_frame(frame_type, 40).push_bytes(body)  # type: ignore[attr-defined]

    pair.client._write_connection_limits = with_report  # type: ignore[method-assign, assignment]
    pair.client.send_ping(1)
    pair.now += 0.01
    for data, _ in pair.client.datagrams_to_send(pair.now):
        pair.server.receive_datagram(data, HERE, pair.now)
    ending = pair.server.ending
    assert ending is not None and "nobody asked for" in ending.reason_phrase


def test_a_client_that_wants_no_reports_gets_none() -> None:
    pair = Pair()
    pair.client._role = SENDS_REPORTS
    pair.turn()
    pair.time(0.5)
    assert pair.server.is_established
    assert pair.client.observation is None


@settings(max_examples=20, deadline=None)
@given(st.binary(max_size=1500))
def test_strange_datagrams_do_no_harm(data: bytes) -> None:
    pair = Pair()
    pair.server.receive_datagram(data, ELSEWHERE, 0.0)
    pair.client.receive_datagram(data, SERVER, 0.0)
    pair.turn()
    pair.time(0.5)
    assert pair.client.observation is not None


def test_a_key_that_is_no_pem_is_refused() -> None:
    with pytest.raises(ValueError):
        ServerIdentity.from_pem(PEM, b"no key")
