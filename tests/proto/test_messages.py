"""Messages: exact bytes, every refusal, and any input split or mutated."""

import json
import traceback
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.splitting import cut_positions, mutations, pieces

from tunnel_rs.errors import ProtocolError
from tunnel_rs.proto.messages import (
    MAX_MESSAGE,
    MAX_REASON,
    AuthRequest,
    AuthResponse,
    Message,
    MessageDecoder,
    SourceRequest,
    SourceResponse,
    cut_reason,
    decode_auth_request,
    decode_auth_response,
    decode_source_request,
    decode_source_response,
    encode,
)
from tunnel_rs.values import Secret

TOKEN = "iabcdefghijklmnopg"

VECTORS: list[tuple[Message, bytes]] = [
    (
        AuthRequest(Secret(TOKEN)),
        b'\x00\x00\x00\x2f{"version":3,"auth_token":"iabcdefghijklmnopg"}',
    ),
    (AuthResponse(True), b'\x00\x00\x00\x1d{"version":3,"accepted":true}'),
    (
        AuthResponse(False, "no"),
        b'\x00\x00\x00\x2c{"version":3,"accepted":false,"reason":"no"}',
    ),
    (
        SourceRequest("tcp://127.0.0.1:22"),
        b'\x00\x00\x00\x2b{"version":3,"source":"tcp://127.0.0.1:22"}',
    ),
    (
        SourceRequest("udp://h:1", datagrams=True),
        b'\x00\x00\x00\x38{"version":3,"source":"udp://h:1","quic_datagrams":true}',
    ),
    (
        SourceResponse(True, datagrams=True),
        b'\x00\x00\x00\x33{"version":3,"accepted":true,"quic_datagrams":true}',
    ),
    (SourceResponse(True), b'\x00\x00\x00\x1d{"version":3,"accepted":true}'),
    (
        SourceResponse(False, "Gr\u00fc\u00dfe"),
        b'\x00\x00\x00\x31{"version":3,"accepted":false,"reason":"Gr\xc3\xbc\xc3\x9fe"}',
    ),
]

Decode = Callable[[bytes], Message]

DECODERS: dict[type[Message], Decode] = {
    AuthRequest: decode_auth_request,
    AuthResponse: decode_auth_response,
    SourceRequest: decode_source_request,
    SourceResponse: decode_source_response,
}
ALL_DECODERS = list(DECODERS.values())


def body(**fields: object) -> bytes:
    return json.dumps({"version": 3, **fields}).encode()


@pytest.mark.parametrize(("message", "wire"), VECTORS)
def test_a_message_has_exactly_the_bytes_of_the_spec(message: Message, wire: bytes) -> None:
    assert encode(message) == wire


@pytest.mark.parametrize(("message", "wire"), VECTORS)
def test_the_bytes_of_the_spec_are_read_as_the_message(message: Message, wire: bytes) -> None:
    assert DECODERS[type(message)](wire[4:]) == message


def test_the_length_prefix_counts_the_bytes_of_the_body() -> None:
    wire = encode(SourceResponse(False, "\u00e9"))
    assert int.from_bytes(wire[:4], "big") == len(wire) - 4


def test_unknown_fields_are_ignored_whatever_they_hold() -> None:
    data = b'{"new":{"a":[1,{"a":2,"a":3}]},"version":3,"source":"tcp://h:1","x":null,"x":1e9}'
    assert decode_source_request(data) == SourceRequest("tcp://h:1")


@pytest.mark.parametrize("value", [False, None, 1, "true", [True], {}])
def test_only_true_offers_datagrams(value: object) -> None:
    assert decode_source_request(body(source="udp://h:1", quic_datagrams=value)) == SourceRequest(
        "udp://h:1"
    )
    answer = decode_source_response(body(accepted=True, quic_datagrams=value))
    assert answer == SourceResponse(True)


def test_a_reason_of_null_is_read_as_none() -> None:
    assert decode_auth_response(body(accepted=False, reason=None)) == AuthResponse(False)


@pytest.mark.parametrize("decode", ALL_DECODERS)
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"3",
        b'"text"',
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        '{"version":3}'.encode("utf-16"),
        b'{"version":NaN}',
        b"[" * 16_000,
        b'{"a":' * 3_000,
        b"9" * 16_000,
        b'{"version":3,}',
    ],
)
def test_what_is_no_json_object_is_refused(decode: Decode, data: bytes) -> None:
    with pytest.raises(ProtocolError, match="is not a JSON object in UTF-8$"):
        decode(data)


@pytest.mark.parametrize("decode", ALL_DECODERS)
@pytest.mark.parametrize(
    ("version", "shown"),
    [
        ("2", "2"),
        ("4", "4"),
        ("-3", "-3"),
        ("3.0", "unknown"),
        ("true", "unknown"),
        ('"3"', "unknown"),
        ("null", "unknown"),
        ("9" * 4000, "unknown"),
    ],
)
def test_another_version_is_refused_and_named(decode: Decode, version: str, shown: str) -> None:
    data = f'{{"version":{version},"auth_token":"x","accepted":true,"source":"x"}}'.encode()
    with pytest.raises(ProtocolError, match=f"protocol version {shown}, this program speaks 3"):
        decode(data)


@pytest.mark.parametrize("decode", ALL_DECODERS)
def test_a_missing_version_is_refused(decode: Decode) -> None:
    with pytest.raises(ProtocolError, match="protocol version unknown"):
        decode(b'{"auth_token":"x","accepted":true,"source":"x"}')


@pytest.mark.parametrize(
    ("decode", "field"),
    [
        (decode_auth_request, "auth_token"),
        (decode_auth_response, "accepted"),
        (decode_source_request, "source"),
        (decode_source_response, "accepted"),
    ],
)
def test_a_required_field_may_not_be_missing_null_twice_or_of_another_kind(
    decode: Decode, field: str
) -> None:
    with pytest.raises(ProtocolError, match=f"has no field '{field}'"):
        decode(body())
    with pytest.raises(ProtocolError, match=f"has no field '{field}'"):
        decode(body(**{field: None}))
    with pytest.raises(ProtocolError, match=f"has the field '{field}' twice"):
        decode(f'{{"version":3,"{field}":true,"{field}":"x"}}'.encode())
    wrong: object
    for wrong in (1, 0.5, [], {}):
        with pytest.raises(ProtocolError, match=f"the field '{field}' of the .* is not t"):
            decode(body(**{field: wrong}))


def test_a_version_given_twice_is_refused() -> None:
    with pytest.raises(ProtocolError, match="has the field 'version' twice"):
        decode_source_request(b'{"version":3,"version":3,"source":"x"}')


def test_a_reason_that_is_no_text_is_refused() -> None:
    with pytest.raises(ProtocolError, match="the field 'reason' of the source response"):
        decode_source_response(body(accepted=False, reason=7))


def test_text_with_a_lone_surrogate_is_refused() -> None:
    with pytest.raises(ProtocolError, match="is not Unicode text"):
        decode_source_request(b'{"version":3,"source":"\\ud800"}')


def test_a_received_reason_is_fit_to_be_shown() -> None:
    evil = "a\x1b[2J\r\nb\u202e" + "x" * 5000
    reason = decode_auth_response(body(accepted=False, reason=evil)).reason
    assert reason is not None
    assert reason.startswith("a [2J  b x")
    assert reason.isprintable()
    assert len(reason.encode()) == MAX_REASON


@pytest.mark.parametrize(
    "data",
    [
        body(auth_token=TOKEN)[:-1],
        body(auth_token=TOKEN, version=2),
        body(auth_token=[TOKEN]),
        f'{{"version":3,"auth_token":"{TOKEN}","auth_token":"{TOKEN}"}}'.encode(),
        f'{{"version":3,"auth_token":"{TOKEN}\\ud800"}}'.encode(),
        body(auth_token=TOKEN).decode().encode("latin-1") + b"\xff",
    ],
)
def test_no_error_about_an_auth_request_holds_the_token(data: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode_auth_request(data)
    assert caught.value.__context__ is None
    assert TOKEN not in "".join(traceback.format_exception(caught.value))


def test_a_token_shows_in_no_repr_of_its_request() -> None:
    assert TOKEN not in repr(decode_auth_request(body(auth_token=TOKEN)))


def test_a_reason_of_512_bytes_is_kept_and_one_more_is_cut() -> None:
    assert cut_reason("x" * 512) == "x" * 512
    assert cut_reason("x" * 513) == "x" * 509 + "..."


def test_a_reason_is_cut_between_characters() -> None:
    assert cut_reason("\u20ac" * 171) == "\u20ac" * 169 + "..."
    assert cut_reason("x" + "\u20ac" * 171) == "x" + "\u20ac" * 169 + "..."


def test_a_reason_that_has_no_utf8_form_can_still_be_sent() -> None:
    wire = encode(SourceResponse(False, "no file \udce9"))
    assert decode_source_response(wire[4:]).reason == "no file ?"


@given(st.text(st.characters(codec=None), max_size=600))
def test_a_cut_reason_fits_and_begins_as_the_whole(text: str) -> None:
    cut = cut_reason(text)
    assert len(cut.encode()) <= MAX_REASON
    assert text.encode("utf-8", "replace").decode().startswith(cut.removesuffix("..."))


def test_a_message_above_the_limit_is_refused_before_it_is_sent() -> None:
    overhead = len(encode(SourceRequest(""))) - 4
    assert len(encode(SourceRequest("x" * (MAX_MESSAGE - overhead)))) == 4 + MAX_MESSAGE
    with pytest.raises(ValueError, match="a message of 16385 bytes is longer than 16384"):
        encode(SourceRequest("x" * (MAX_MESSAGE - overhead + 1)))


def test_lone_surrogates_of_ours_are_refused_without_quoting_them() -> None:
    with pytest.raises(ValueError, match="lone surrogates cannot be sent") as caught:
        encode(AuthRequest(Secret(TOKEN + "\ud800")))
    assert TOKEN not in "".join(traceback.format_exception(caught.value))


printable = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=60)
messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(AuthRequest, st.builds(Secret, st.text(max_size=60))),
    st.builds(AuthResponse, st.booleans(), st.none() | printable),
    st.builds(SourceRequest, st.text(max_size=60), st.booleans()),
    st.builds(SourceResponse, st.booleans(), st.none() | printable, st.booleans()),
)


@given(messages)
def test_what_is_encoded_is_decoded_again(message: Message) -> None:
    wire = encode(message)
    assert DECODERS[type(message)](wire[4:]) == message


@given(st.sampled_from(VECTORS).flatmap(lambda v: mutations(v[1][4:])) | st.binary(max_size=80))
def test_mutated_bodies_raise_nothing_but_protocol_errors(data: bytes) -> None:
    for decode in ALL_DECODERS:
        try:
            decode(data)
        except ProtocolError as error:
            assert "\n" not in str(error)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
known_fields = st.sampled_from(["version", "auth_token", "accepted", "source", "reason"])


@given(st.dictionaries(known_fields, json_values | st.just(3)))
def test_any_json_value_in_any_field_raises_nothing_but_protocol_errors(fields: object) -> None:
    for decode in ALL_DECODERS:
        try:
            decode(json.dumps(fields).encode())
        except ProtocolError as error:
            assert "\n" not in str(error)


def read_all(decoder: MessageDecoder, parts: list[bytes]) -> list[bytes]:
    bodies = []
    for part in parts:
        decoder.feed(part)
        while (found := decoder.next_message()) is not None:
            bodies.append(found)
    return bodies


@given(st.lists(messages, max_size=4), cut_positions)
def test_messages_are_found_however_the_bytes_are_split(
    sent: list[Message], cuts: list[int]
) -> None:
    wires = [encode(message) for message in sent]
    decoder = MessageDecoder()
    assert read_all(decoder, pieces(b"".join(wires), cuts)) == [wire[4:] for wire in wires]
    assert decoder.at_boundary
    assert decoder.take_rest() == b""


def test_one_byte_at_a_time_is_enough() -> None:
    wire = encode(SourceRequest("tcp://h:1"))
    assert read_all(MessageDecoder(), [bytes([b]) for b in wire]) == [wire[4:]]


def test_an_empty_message_is_a_message() -> None:
    assert read_all(MessageDecoder(), [bytes(4)]) == [b""]


def test_the_longest_message_is_accepted() -> None:
    wire = (MAX_MESSAGE).to_bytes(4, "big") + bytes(MAX_MESSAGE)
    assert read_all(MessageDecoder(), [wire]) == [bytes(MAX_MESSAGE)]


@pytest.mark.parametrize("length", [MAX_MESSAGE + 1, 2**32 - 1])
def test_a_length_above_the_limit_is_refused_when_its_fourth_byte_comes(length: int) -> None:
    decoder = MessageDecoder()
    prefix = length.to_bytes(4, "big")
    decoder.feed(prefix[:3])
    assert decoder.next_message() is None
    decoder.feed(prefix[3:])
    with pytest.raises(ProtocolError, match=f"a message of {length} bytes was announced"):
        decoder.next_message()
    with pytest.raises(RuntimeError):
        decoder.feed(b"more")


def test_payload_after_the_last_message_is_handed_over_unread() -> None:
    decoder = MessageDecoder()
    decoder.feed(encode(SourceRequest("tcp://h:1")) + b"GET / HTTP/1.1\r\n")
    assert decoder.next_message() is not None
    assert not decoder.at_boundary
    assert decoder.take_rest() == b"GET / HTTP/1.1\r\n"
    assert decoder.take_rest() == b""
    assert decoder.at_boundary


def test_feeding_on_with_a_whole_message_unread_is_our_mistake() -> None:
    decoder = MessageDecoder()
    decoder.feed(encode(AuthResponse(True)))
    with pytest.raises(RuntimeError, match="call next_message"):
        decoder.feed(b"")


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_can_be_fed(kind: type[bytes] | type[bytearray] | type[memoryview]) -> None:
    decoder = MessageDecoder()
    decoder.feed(kind(encode(AuthResponse(True))))
    assert decode_auth_response(decoder.next_message() or b"") == AuthResponse(True)


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_garbage_raises_nothing_but_protocol_errors_and_holds_little(parts: list[bytes]) -> None:
    decoder = MessageDecoder()
    try:
        read_all(decoder, parts)
    except ProtocolError:
        return
    assert len(decoder.take_rest()) < 4 + MAX_MESSAGE
