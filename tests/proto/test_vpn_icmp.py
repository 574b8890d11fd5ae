import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel_rs.proto.vpn_icmp import IcmpError, to_ipv4, to_ipv6


@pytest.mark.parametrize(
    ("error4", "error6"),
    [
        ((3, 0, 0), (1, 0, 0)),
        ((3, 1, 0), (1, 0, 0)),
        ((3, 2, 0), (4, 1, 6)),
        ((3, 3, 0), (1, 4, 0)),
        ((3, 4, 1400), (2, 0, 1420)),
        ((3, 4, 0), (2, 0, 1280)),
        ((3, 4, 500), (2, 0, 1280)),
        ((3, 13, 0), (1, 1, 0)),
        ((11, 0, 0), (3, 0, 0)),
        ((11, 1, 0), (3, 1, 0)),
        ((12, 0, 8 << 24), (4, 0, 7)),
    ],
)
def test_errors_of_ipv4_in_ipv6(error4: tuple[int, int, int], error6: tuple[int, int, int]) -> None:
    assert to_ipv6(*error4) == IcmpError(*error6)


@pytest.mark.parametrize(
    ("error6", "error4"),
    [
        ((1, 0, 0), (3, 1, 0)),
        ((1, 1, 0), (3, 10, 0)),
        ((1, 4, 0), (3, 3, 0)),
        ((2, 0, 1420), (3, 4, 1400)),
        ((2, 0, 0), (3, 4, 68)),
        ((2, 0, 2**32 - 1), (3, 4, 65_535)),
        ((3, 0, 0), (11, 0, 0)),
        ((4, 1, 6), (3, 2, 0)),
        ((4, 0, 7), (12, 0, 8 << 24)),
    ],
)
def test_errors_of_ipv6_in_ipv4(error6: tuple[int, int, int], error4: tuple[int, int, int]) -> None:
    assert to_ipv4(*error6) == IcmpError(*error4)


@pytest.mark.parametrize("error", [(3, 14, 0), (4, 0, 0), (5, 0, 0), (11, 2, 0), (12, 1, 0)])
def test_what_ipv6_does_not_have_is_dropped(error: tuple[int, int, int]) -> None:
    assert to_ipv6(*error) is None


@pytest.mark.parametrize("error", [(1, 5, 0), (4, 2, 0), (4, 0, 3), (133, 0, 0), (137, 0, 0)])
def test_what_ipv4_does_not_have_is_dropped(error: tuple[int, int, int]) -> None:
    assert to_ipv4(*error) is None


octets = st.integers(0, 255)


@given(octets, octets, st.integers(0, 2**32 - 1))
def test_every_error_fits_its_fields(kind: int, code: int, rest: int) -> None:
    for translated in (to_ipv4(kind, code, rest), to_ipv6(kind, code, rest)):
        if translated is not None:
            assert bytes(translated[:2]) and translated.rest < 2**32
