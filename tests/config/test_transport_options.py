"""Options of the QUIC transport."""

from tunnel_rs.config.option import BOTH
from tunnel_rs.config.schema import OPTIONS
from tunnel_rs.config.transport_options import MULTIPATH, TRANSPORT, UDP_DATAGRAMS


def test_they_are_for_files_of_both_sides_only() -> None:
    for option in (*TRANSPORT, UDP_DATAGRAMS, MULTIPATH):
        assert option.key == f"iroh.transport.{option.name}"
        assert option.roles == BOTH and not option.flags and option.variable is None


def test_they_are_part_of_the_schema() -> None:
    assert OPTIONS[-len(TRANSPORT) - 2 :] == (*TRANSPORT, UDP_DATAGRAMS, MULTIPATH)
