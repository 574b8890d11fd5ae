from tests.support.samples import ENDPOINT_ID

from tunnel_rs.cli.plain import plain
from tunnel_rs.reports import PathStatus, TunnelStatus
from tunnel_rs.values import EndpointId, Secret, SocketAddr, SourceUrl


def test_records_become_objects_and_values_their_texts() -> None:
    tunnel = TunnelStatus(1, SourceUrl.parse("tcp://a:22"), (SocketAddr("::1", 5),))
    assert plain(tunnel) == {"tunnel": 1, "source": "tcp://a:22", "addresses": ["[::1]:5"]}
    assert plain((PathStatus("x", "direct", 0.5), None, True, 7)) == [
        {"address": "x", "kind": "direct", "rtt": 0.5, "active": True},
        None,
        True,
        7,
    ]
    assert plain({"id": EndpointId.parse(ENDPOINT_ID)}) == {"id": ENDPOINT_ID}


def test_a_secret_is_never_shown() -> None:
    assert plain({"token": Secret("iabcdefghijklmnopg")}) == {"token": "Secret(***)"}
