"""Seeds, their text form, and the ids they prove."""

import os
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel_rs.proto.identity import (
    SECRET_KEY_SIZE,
    decode_secret_key,
    encode_secret_key,
    endpoint_id,
    generate_secret_key,
)
from tunnel_rs.values import EndpointId, Secret

SEED = Secret(bytes([0x2A] * 32))
TEXT = "KioqKioqKioqKioqKioqKioqKioqKioqKioqKioqKio="


@pytest.mark.parametrize(
    ("seed", "text"),
    [
        ("2a" * 32, "197f6b23e16c8532c6abc838facd5ea789be0c76b2920334039bfa8b3d368d61"),
        (
            # RFC 8032 section 7.1, test 1
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        ),
        (
            # discovery.md section 8
            "abdaadffee096b95a1ed91430083f8b294468b975bd8eacfb391689703fdcc10",
            "3cf359f65ae705eb279a5750eec57f4ac6efc635e04d92d60eadcca87d250f18",
        ),
    ],
)
def test_the_id_of_a_seed_is_its_public_key(seed: str, text: str) -> None:
    assert endpoint_id(Secret(bytes.fromhex(seed))) == EndpointId.parse(text)


def test_a_seed_is_written_as_standard_base64() -> None:
    assert encode_secret_key(SEED) == TEXT


@pytest.mark.parametrize("written", [TEXT, TEXT + "\n", TEXT + "\r\n", f"\t{TEXT}  "])
def test_blanks_and_line_ends_around_it_are_ignored(written: str) -> None:
    assert decode_secret_key(written) == SEED


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "a secret key has 32 bytes, this has 0"),
        ("AAAA", "a secret key has 32 bytes, this has 3"),
        ("A" * 64, "a secret key has 32 bytes, this has 48"),
        (TEXT[:-1], "is not base64$"),
        (TEXT[:-2] + "p=", "stray bits"),
        (TEXT[:20] + "\n" + TEXT[20:], "is not base64$"),
        (TEXT[:20] + " " + TEXT[20:], "is not base64$"),
        (TEXT.replace("K", "-"), "is not base64$"),
        (TEXT + "=", "is not base64"),
        (TEXT.replace("K", "\u212a"), "is not base64$"),
    ],
)
def test_what_is_no_key_is_refused_without_being_quoted(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        decode_secret_key(text)
    if text:
        assert text not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_seed_of_another_size_is_refused(size: int) -> None:
    seed = Secret(bytes(size))
    with pytest.raises(ValueError, match=f"32 bytes, this has {size}"):
        encode_secret_key(seed)
    with pytest.raises(ValueError, match=f"32 bytes, this has {size}"):
        endpoint_id(seed)
    with pytest.raises(ValueError, match=f"32 bytes, this has {size}"):
        generate_secret_key(lambda _: bytes(size))


def test_a_generated_key_is_what_the_random_source_gave() -> None:
    assert generate_secret_key(lambda n: bytes(range(n))) == Secret(bytes(range(32)))
    assert generate_secret_key(os.urandom) != generate_secret_key(os.urandom)


@given(st.binary(min_size=SECRET_KEY_SIZE, max_size=SECRET_KEY_SIZE))
def test_what_is_written_is_read_again_and_has_a_valid_id(seed: bytes) -> None:
    assert decode_secret_key(encode_secret_key(Secret(seed))) == Secret(seed)
    identity = endpoint_id(Secret(seed))
    assert EndpointId.parse(str(identity)) == identity


@given(st.text(max_size=60) | st.text("AQgw+/=aZ09 \n", min_size=40, max_size=48))
def test_no_text_raises_anything_but_a_one_line_value_error(text: str) -> None:
    try:
        decode_secret_key(text)
    except ValueError as error:
        assert "\n" not in str(error)
