"""The VPN found and reached by way of a relay, a discovery server and the DNS, which its own routes
must not take away from it."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.vpn_lab import FAR, FAR_SIDE, SERVER_ADDRESS, Lab, needs_lab, vpn_lab

pytestmark = [pytest.mark.netns, needs_lab, pytest.mark.timeout(240)]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with vpn_lab(tmp_path) as made:
        yield made


def peers_at_the_relay(lab: Lab) -> str:
    return lab.in_(lab.far, "ss", "-Htn", "sport", "=", ":3340")


def test_everything_goes_through_a_tunnel_by_a_relay_that_is_found_again(lab: Lab) -> None:
    relay, discovery = lab.start_infrastructure()
    reach = ("--relay-url", relay, "--dns-server", discovery)
    network = ("--network", "10.7.0.0/24", "--network6", "fd07::/64", "--masquerade")
    server, namespace = lab.start_server(*network, reach=reach), lab.client()
    with lab.cut_off(namespace, f"ip daddr {SERVER_ADDRESS} udp dport 4433"):
        # Discovery by default: TXT records in the DNS, asked at a server beyond the default route.
        client = lab.start_client(
            namespace, "--route", "0.0.0.0/0", "--route6", "::/0", reach=("--relay-url", relay)
        )
        assert client.wait("tunnel_up")["way"].startswith("http://relay.example")
        assert lab.seen_from(namespace) == FAR_SIDE
        assert lab.in_(namespace, "ip", "route", "get", FAR).split()[2].startswith("tunnel")
        assert "192.0.2.2:" in peers_at_the_relay(lab), "the tunnel itself stays outside"
        server.stop(signal.SIGKILL)
        client.wait("tunnel_lost")
        lab.start_server(*network, reach=reach)
        client.wait("vpn_up", 2)
        assert lab.seen_from(namespace, port=7001) == FAR_SIDE
    client.stop()
    assert lab.seen_from(namespace, port=7002).startswith("192.0.2.")
