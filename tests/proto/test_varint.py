"""Variable-length integers (RFC 9000 section 16, examples of appendix A.1)."""

import pytest
from aioquic.buffer import Buffer
from hypothesis import given
from hypothesis import strategies as st

from tunnel_rs.proto import varint


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (151_288_809_941_952_652, "c2197c5eff14e88c"),
        (494_878_333, "9d7f3e7d"),
        (15_293, "7bbd"),
        (37, "25"),
        (0, "00"),
        (varint.MAX, "ff" * 8),
    ],
)
def test_values_have_their_shortest_form(value: int, encoded: str) -> None:
    assert varint.encode(value).hex() == encoded


@given(st.integers(0, varint.MAX))
def test_what_is_encoded_reads_back(value: int) -> None:
    assert Buffer(data=varint.encode(value)).pull_uint_var() == value


@pytest.mark.parametrize("value", [-1, varint.MAX + 1])
def test_values_outside_the_range_are_refused(value: int) -> None:
    with pytest.raises(ValueError, match="negative|large"):
        varint.encode(value)
