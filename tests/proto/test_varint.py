"""Variable-length integers: RFC 9000 section 16 and appendix A.1."""

import pytest
from aioquic._buffer import Buffer
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
def test_the_examples_of_the_rfc(value: int, encoded: str) -> None:
    assert varint.encode(value).hex() == encoded


@given(st.integers(0, varint.MAX) | st.integers(0, 70_000))
def test_aioquic_reads_what_is_written(value: int) -> None:
    encoded = varint.encode(value)
    assert Buffer(data=encoded).pull_uint_var() == value
    writer = Buffer(capacity=8)
    writer.push_uint_var(value)
    assert encoded == writer.data


@pytest.mark.parametrize("value", [-1, varint.MAX + 1])
def test_what_does_not_fit_is_refused(value: int) -> None:
    with pytest.raises(ValueError):
        varint.encode(value)


@given(st.integers(0, varint.MAX) | st.integers(0, 70_000), st.binary(max_size=3), st.binary())
def test_what_is_written_is_read_wherever_it_stands(
    value: int, before: bytes, after: bytes
) -> None:
    encoded = varint.encode(value)
    found = varint.decode(before + encoded + after, len(before))
    assert found == (value, len(before) + len(encoded))


@given(st.integers(0, varint.MAX), st.data())
def test_what_is_cut_off_is_refused(value: int, data: st.DataObject) -> None:
    encoded = varint.encode(value)
    kept = data.draw(st.integers(0, len(encoded) - 1))
    with pytest.raises(ValueError):
        varint.decode(encoded[:kept], 0)
