import base64
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel_rs.errors import ProtocolError
from tunnel_rs.proto.manual_text import (
    MAX_LINE,
    MAX_TEXT,
    BlockKind,
    PasteReader,
    decode_payload,
    encode_block,
    encode_payload,
    find_block,
)

BODY = (
    b'{"version":1,"ice_ufrag":"abcdEFGH12345678","ice_pwd":"0123456789abcdefghijkl",'
    b'"candidates":["candidate:1 1 udp 2130706431 192.0.2.5 40000 typ host"],'
    b'"quic_fingerprint":"","source":"tcp://127.0.0.1:22"}'
)
"""The vector of spec ice.md section 1.3."""

BLOCK = encode_block(BlockKind.OFFER, BODY)


def found(text: str) -> bytes:
    return find_block(BlockKind.OFFER, text)[0]


def test_the_payload_is_that_of_the_vector() -> None:
    payload = encode_payload(BODY)
    assert payload.startswith("TRS1:018f3216:") and len(payload) == 284


def test_a_block_has_blank_lines_around_markers_and_76_characters_a_line() -> None:
    lines = BLOCK.split("\n")
    assert lines[0] == "" and lines[-2:] == ["", ""]
    assert lines[1] == "-----BEGIN TUNNEL-RS MANUAL OFFER-----"
    assert lines[-3] == "-----END TUNNEL-RS MANUAL OFFER-----"
    assert [len(line) for line in lines[2:-3]] == [76, 76, 76, 284 - 3 * 76]


@given(st.binary(max_size=2000))
def test_any_body_survives_the_way(body: bytes) -> None:
    assert find_block(BlockKind.ANSWER, encode_block(BlockKind.ANSWER, body)) == (body, 0)


@pytest.mark.parametrize(
    "mangle",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\n", "\n\n \n"),
        lambda text: text.replace("\n", "\n> "),
        lambda text: text.replace("\n", "\n    "),
        lambda text: "\ufeff" + text,
        lambda text: text.replace("-----", "\u2014--"),
        lambda text: text.replace("\n-----", "\n*-----") + "bye",
        lambda text: text.rstrip(),
        lambda text: text.replace("e", "e\u200b"),
        lambda text: text.replace("TRS1:", "TRS1:\n"),
    ],
)
def test_what_mail_and_chats_do_to_text_is_forgiven(mangle: object) -> None:
    assert callable(mangle)
    assert found(mangle(BLOCK)) == BODY


def test_words_around_the_block_are_left_out_and_counted() -> None:
    text = f"Hi Bob,\n\nhere it is:\n{BLOCK}\nRegards"
    assert find_block(BlockKind.OFFER, text) == (BODY, 2)


def test_a_payload_alone_is_enough_as_a_qr_code_holds_nothing_else() -> None:
    assert found(f"scanned:\n{encode_payload(BODY)}\n") == BODY
    with pytest.raises(ProtocolError, match="no offer in the text"):
        found(encode_payload(BODY)[:76])


def test_a_second_beginning_starts_over() -> None:
    head = "\n".join(BLOCK.split("\n")[:4])
    assert found(f"{head}\n{BLOCK}") == BODY


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no offer in the text"),
        ("hello", "no offer in the text"),
        (BLOCK[: BLOCK.index("-----END")], "cut off"),
        (BLOCK.replace("-----BEGIN TUNNEL-RS MANUAL OFFER-----\n", ""), "beginning of the offer"),
        ("\n".join(BLOCK.split("\n")[:2] + BLOCK.split("\n")[-3:]), "is empty"),
        (encode_block(BlockKind.ANSWER, BODY), "this is an answer; an offer is needed"),
        (BLOCK.replace("TRS1", "XYZ1"), "does not begin with TRS1"),
        (BLOCK.replace("TRS1", "TRS2"), "version 2"),
        (BLOCK.replace("018f3216", "018f321"), "checksum at the beginning"),
        (BLOCK.replace("018f3216", "018f3217"), "checksum 018f3216 instead of 018f3217"),
        ("\n".join(BLOCK.split("\n")[:3] + BLOCK.split("\n")[4:]), "checksum"),
        (BLOCK.replace("eyJ2", "eyJ!"), "'!' at character 18"),
    ],
)
def test_damage_is_explained(text: str, problem: str) -> None:
    with pytest.raises(ProtocolError, match=problem):
        found(text)


def test_a_missing_character_is_explained() -> None:
    text = base64.urlsafe_b64encode(b"abc").decode()[:1]
    with pytest.raises(ProtocolError, match="a character is missing"):
        decode_payload(f"TRS1:{zlib.crc32(b'abc'):08x}:{text}")


def test_a_paste_of_10_mb_is_refused_while_it_comes() -> None:
    reader = PasteReader(BlockKind.OFFER)
    reader.feed("-----BEGIN TUNNEL-RS MANUAL OFFER-----")
    with pytest.raises(ProtocolError, match="longer than"):
        for _ in range(10_000_000 // 1000):
            reader.feed("A" * 1000)
    assert reader._length <= MAX_TEXT + 1000
    with pytest.raises(ProtocolError, match="no part of a block"):
        PasteReader(BlockKind.OFFER).feed("A" * (MAX_LINE + 1))


@given(st.text(max_size=300))
def test_no_text_raises_anything_else(text: str) -> None:
    with pytest.raises(ProtocolError):
        found(
            f"-----BEGIN TUNNEL-RS MANUAL OFFER-----\n{text}\n-----END TUNNEL-RS MANUAL OFFER-----"
        )
