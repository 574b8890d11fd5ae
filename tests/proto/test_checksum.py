from hypothesis import given
from hypothesis import strategies as st
from tests.support import ip_packets

from tunnel_rs.proto.checksum import complement, partial_sum


@given(st.binary(max_size=3000))
def test_it_is_the_checksum_of_rfc_1071(data: bytes) -> None:
    plain = ip_packets.checksum(data)
    assert complement(partial_sum(data)) % 0xFFFF == plain % 0xFFFF


@given(st.binary(max_size=64))
def test_a_checksum_is_never_zero(data: bytes) -> None:
    assert 0 < complement(partial_sum(data)) <= 0xFFFF
