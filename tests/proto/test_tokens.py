"""Tokens: the vectors of the spec, every refusal, and files of them."""

import os
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel_rs.proto.tokens import ALPHABET, check_token, generate_token
from tunnel_rs.values import Secret

VALID = ["iAAAAAAAAAAAAAAAAA", "iabcdefghijklmnopg", "iZ9-_.Z9-_.Z9-_.ZU"]
WRONG_CHECK_CHARACTER = "ikAdvudu_ZxNXhNLCD"

bodies = st.text(ALPHABET, min_size=16, max_size=16)


def token_of(body: str) -> str:
    """The token with this body, found by trying every check character."""
    fitting = [c for c in ALPHABET if is_token(f"i{body}{c}")]
    assert len(fitting) == 1
    return f"i{body}{fitting[0]}"


def is_token(text: str) -> bool:
    try:
        check_token(text)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("token", VALID)
def test_the_valid_tokens_of_the_spec_are_accepted(token: str) -> None:
    assert check_token(token) == Secret(token)


def test_the_invalid_token_of_the_spec_is_refused() -> None:
    with pytest.raises(ValueError, match="check character does not fit"):
        check_token(WRONG_CHECK_CHARACTER)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "a token has 18 characters, this has 0"),
        (VALID[1][:-1], "a token has 18 characters, this has 17"),
        (VALID[1] + "a", "a token has 18 characters, this has 19"),
        (" " + VALID[1], "a token has 18 characters, this has 19"),
        ("I" + VALID[1][1:], "a token begins with 'i'"),
        ("\u0131" + VALID[1][1:], "a token begins with 'i'"),
        ("i " + VALID[1][2:], "character 2 of the token is none of"),
        ("iabc+efghijklmnopg", "character 5 of the token is none of"),
        ("iabcd\u00e9fghijklmnopg", "character 6 of the token is none of"),
        (VALID[1][:-1] + "\n", "character 18 of the token is none of"),
        (VALID[1][:-1] + "h", "check character does not fit"),
    ],
)
def test_a_bad_token_is_refused_saying_what_is_wrong_but_not_the_token(
    text: str, says: str
) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        check_token(text)
    if text:
        assert text not in "".join(traceback.format_exception(caught.value))


def test_a_generated_token_is_made_from_the_random_bytes() -> None:
    assert generate_token(bytes).reveal() == VALID[0]
    letters = bytes(range(26, 42))
    assert generate_token(lambda n: letters[:n]).reveal() == VALID[1]


@given(st.randoms(use_true_random=False))
def test_generated_tokens_are_valid(random) -> None:  # type: ignore[no-untyped-def]
    token = generate_token(random.randbytes)
    assert check_token(token.reveal()) == token


def test_the_random_source_of_the_system_serves() -> None:
    tokens = {generate_token(os.urandom) for _ in range(20)}
    assert len(tokens) == 20


def test_every_character_is_equally_likely() -> None:
    """Each random byte alone: 65 characters of 3 bytes each, the other 61 bytes thrown away."""
    drawn: dict[str, int] = dict.fromkeys(ALPHABET, 0)
    thrown_away = 0
    for byte in range(256):
        # The byte in question first; if it is thrown away, what follows shows in its place.
        supply = iter(bytes([byte]) + bytes(range(16)))
        token = generate_token(lambda n, supply=supply: bytes(next(supply) for _ in range(n)))  # type: ignore[misc]
        if token.reveal()[1:17] == ALPHABET[:16] and byte != 0:
            thrown_away += 1
        else:
            drawn[token.reveal()[1]] += 1
    assert set(drawn.values()) == {3}
    assert thrown_away == 61


def same_doubled(left: str, right: str) -> bool:
    """Whether Luhn's doubling takes both characters for the same: 65 is odd, so twice n and twice
    n + 32 (as 1 + 2n - 1) give one sum."""
    return abs(ALPHABET.index(left) - ALPHABET.index(right)) == 32 and "A" not in (left, right)


@given(bodies, st.integers(0, 16), st.sampled_from(ALPHABET))
def test_a_single_typing_error_is_noticed_as_far_as_luhn_can(
    body: str, position: int, typed: str
) -> None:
    token = token_of(body)
    was = token[position + 1]
    mistyped = token[: position + 1] + typed + token[position + 2 :]
    unnoticeable = position % 2 == 1 and same_doubled(was, typed)
    assert is_token(mistyped) == (typed == was or unnoticeable)


@given(bodies, st.integers(0, 15))
def test_every_swap_of_neighbours_but_one_pair_is_noticed(body: str, position: int) -> None:
    token = token_of(body)
    left, right = token[position + 1], token[position + 2]
    swapped = token[: position + 1] + right + left + token[position + 3 :]
    assert is_token(swapped) == (left == right or {left, right} == {"A", "."})


@given(st.text(max_size=24) | st.text(ALPHABET, max_size=24) | st.text(min_size=18, max_size=18))
def test_no_text_raises_anything_but_a_one_line_value_error(text: str) -> None:
    try:
        check_token(text)
    except ValueError as error:
        assert "\n" not in str(error)
