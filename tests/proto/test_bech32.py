import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel_rs.proto.bech32 import decode, encode

LONG_NAME = "an83characterlonghumanreadablepartthatcontainsthenumber1andtheexcludedcharactersbio"


@pytest.mark.parametrize(
    ("text", "name", "data"),
    [
        ("A12UEL5L", "a", ""),
        ("a12uel5l", "a", ""),
        (f"{LONG_NAME}1tt5tgs", LONG_NAME, ""),
        (
            "abcdef1qpzry9x8gf2tvdw0s3jn54khce6mua7lmqqqxw",
            "abcdef",
            "00443214c74254b635cf84653a56d7c675be77df",
        ),
        ("1" * 2 + "q" * 82 + "c8247j", "1", "00" * 51),
        (
            "split1checkupstagehandshakeupstreamerranterredcaperred2y9e3w",
            "split",
            "c5f38b70305f519bf66d85fb6cf03058f3dde463ecd7918f2dc743918f2d",
        ),
        ("?1ezyfcl", "?", ""),
    ],
)
def test_the_examples_of_bip_173(text: str, name: str, data: str) -> None:
    assert decode(name, text).hex() == data
    assert encode(name, bytes.fromhex(data)) == text.lower()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("pzry9x0s0muk", "begin with"),
        ("1pzry9x0s0muk", "begin with"),
        ("b12uel5l", "begin with"),
        ("x1b4n0q5v", "another alphabet"),
        ("x1dgmt3", "cut off"),
        ("x1lg7wt\xff", "not of ASCII"),
        ("X1LG7WT\N{KELVIN SIGN}", "not of ASCII"),
        ("X1G7SGD8", "checksum"),
        ("x1qqqqqqqqqqqq", "checksum"),
        ("X1g7sgd8", "both cases"),
    ],
)
def test_what_is_no_bech32_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        decode("x", text)


@pytest.mark.parametrize(
    "text",
    [
        "x1qm7ssx4",
        "x1qqqn0an5s",
        "x1qqqqqqzd2aw6",
        "x1qpxqa3vz",
        "x1qqqz820eeq",
        "x1qqqqpgnypt6",
    ],
)
def test_bits_that_are_no_whole_byte_are_refused(text: str) -> None:
    assert decode("x", "x1qqqqq49s5kg") == bytes(3)
    with pytest.raises(ValueError, match="whole byte"):
        decode("x", text)


@given(st.text("abcxyz019", min_size=1, max_size=10), st.binary(max_size=60))
def test_any_bytes_survive_the_way(name: str, data: bytes) -> None:
    text = encode(name, data)
    assert decode(name, text) == decode(name, text.upper()) == data


@given(st.binary(max_size=32), st.data())
def test_up_to_four_wrong_characters_are_always_noticed(data: bytes, drawn: st.DataObject) -> None:
    text = list(encode("npub", data))
    places = st.integers(min_value=len("npub1"), max_value=len(text) - 1)
    for place in drawn.draw(st.sets(places, min_size=1, max_size=4)):
        others = st.sampled_from("qpzry9x8gf2tvdw0s3jn54khce6mua7l")
        text[place] = drawn.draw(others.filter(lambda c, place=place: c != text[place]))
    with pytest.raises(ValueError, match="checksum"):
        decode("npub", "".join(text))


@given(st.text(max_size=80))
def test_no_text_raises_anything_but_a_value_error(text: str) -> None:
    for candidate in (text, f"npub1{text}"):
        with pytest.raises(ValueError):
            decode("npub", candidate)
