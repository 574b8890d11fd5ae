import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel_rs.errors import ProtocolError
from tunnel_rs.proto.ice_messages import (
    MAX_CANDIDATES,
    STREAMS,
    Answer,
    IceParameters,
    Offer,
    Reject,
    Request,
    decode_answer,
    decode_offer,
    decode_reject,
    decode_request,
    encode,
)
from tunnel_rs.values import EndpointId

CANDIDATE = "candidate:1 1 udp 2130706431 192.0.2.5 40000 typ host"
ICE = IceParameters("abcdEFGH12345678", "0123456789abcdefghijkl", (CANDIDATE,))
PRINT = EndpointId(bytes(range(32)))


def fields_of(message: Offer | Answer | Request | Reject) -> dict[str, Any]:
    fields = json.loads(encode(message))
    assert isinstance(fields, dict)
    return fields


def changed(message: Offer | Answer | Request | Reject, **changes: Any) -> bytes:
    fields = {**fields_of(message), **changes}
    return json.dumps({k: v for k, v in fields.items() if v is not ...}).encode()


def test_a_manual_offer_is_the_original_s_to_the_byte() -> None:
    assert encode(Offer(ICE, source="tcp://127.0.0.1:22")) == (
        b'{"version":1,"ice_ufrag":"abcdEFGH12345678","ice_pwd":"0123456789abcdefghijkl",'
        b'"candidates":["candidate:1 1 udp 2130706431 192.0.2.5 40000 typ host"],'
        b'"quic_fingerprint":"","source":"tcp://127.0.0.1:22"}'
    )


def test_fields_come_in_the_original_s_order_and_ours_last() -> None:
    ice = ["version", "ice_ufrag", "ice_pwd", "candidates"]
    assert list(fields_of(Offer(ICE, PRINT, "0" * 16))) == [*ice, "quic_fingerprint", "session_id"]
    assert list(fields_of(Answer(ICE, "0" * 16, PRINT))) == [*ice, "session_id", "quic_fingerprint"]
    request = Request(ICE, "0" * 16, 1, "tcp://a:1", STREAMS, PRINT)
    ours = ["streams", "quic_client_fingerprint"]
    assert list(fields_of(request)) == [*ice, "session_id", "timestamp", "source", *ours]
    assert list(fields_of(Reject("0" * 16, "no"))) == ["version", "session_id", "reason"]


def test_every_message_survives_the_way() -> None:
    offer = Offer(ICE, PRINT, "0" * 16, "tcp://a:1", STREAMS, PRINT)
    assert decode_offer(encode(offer)) == offer
    answer = Answer(ICE, "0" * 16, PRINT, STREAMS)
    assert decode_answer(encode(answer)) == answer
    request = Request(ICE, "0" * 16, 2**64 - 1, "tcp://a:1", STREAMS, PRINT)
    assert decode_request(encode(request)) == request
    assert decode_reject(encode(Reject("0" * 16, "no"))) == Reject("0" * 16, "no")


def test_unknown_fields_and_stream_protocols_are_ignored() -> None:
    offer = decode_offer(changed(Offer(ICE), news=[1], streams="multi-forward/9"))
    assert offer == Offer(ICE)


def test_a_fingerprint_in_upper_case_is_the_same() -> None:
    body = changed(Offer(ICE, PRINT), quic_fingerprint=str(PRINT).upper())
    assert decode_offer(body).fingerprint == PRINT


def test_a_long_reason_is_cut_to_512_bytes() -> None:
    reason = fields_of(Reject("0" * 16, "é" * 400))["reason"]
    assert len(reason.encode()) <= 512 and reason.endswith("...")


def test_a_reason_comes_out_as_one_printable_line() -> None:
    assert decode_reject(changed(Reject("0" * 16, "x"), reason="a\n\x1b[2Jb")).reason == "a  [2Jb"


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"\xff", "no JSON object"),
        (b"[]", "no JSON object"),
        (b"[" * 100_000, "no JSON object"),
        (b"{" + b" " * (1 << 20) + b"}", "bytes"),
        (changed(Offer(ICE), version=2), "version 2"),
        (changed(Offer(ICE), version=True), "version unknown"),
        (changed(Offer(ICE), version=...), "version unknown"),
        (changed(Offer(ICE), ice_ufrag=...), "'ice_ufrag'"),
        (changed(Offer(ICE), ice_ufrag="abc"), "credentials"),
        (changed(Offer(ICE), ice_pwd="short"), "credentials"),
        (changed(Offer(ICE), ice_pwd=7), "not text"),
        (changed(Offer(ICE), candidates="x"), "list of candidates"),
        (changed(Offer(ICE), candidates=[1]), "list of candidates"),
        (changed(Offer(ICE), candidates=["x"] * 10_000), f"10000 candidates; {MAX_CANDIDATES}"),
        (changed(Offer(ICE), quic_fingerprint="ab"), "SHA-256"),
        (changed(Offer(ICE), quic_fingerprint="z" * 64), "SHA-256"),
        (changed(Offer(ICE), session_id="a b"), "letters and digits"),
        (changed(Offer(ICE), source="x" * 513), "not text of 512"),
    ],
)
def test_a_damaged_offer_says_what_is_wrong(body: bytes, problem: str) -> None:
    with pytest.raises(ProtocolError, match=problem) as caught:
        decode_offer(body)
    assert ICE.password not in str(caught.value)


@pytest.mark.parametrize("timestamp", [..., -1, 1 << 64, 1.5, True, "1"])
def test_a_request_needs_a_time(timestamp: object) -> None:
    with pytest.raises(ProtocolError, match="no time"):
        decode_request(changed(Request(ICE, "0" * 16, 1), timestamp=timestamp))


def test_a_request_needs_a_session_id() -> None:
    with pytest.raises(ProtocolError, match="'session_id'"):
        decode_request(changed(Request(ICE, "0" * 16, 1), session_id=...))


def test_a_password_is_not_shown() -> None:
    assert ICE.password not in repr(Offer(ICE))


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_else(body: bytes) -> None:
    for decode in (decode_offer, decode_answer, decode_request, decode_reject):
        with pytest.raises(ProtocolError):
            decode(body)
