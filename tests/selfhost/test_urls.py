from ipaddress import ip_address

import pytest
from tests.support.relay_peers import make_certificate

from tunnel_rs.net.interfaces import Interface
from tunnel_rs.selfhost.urls import certificate_names, server_urls
from tunnel_rs.values import SocketAddr


def interface(*ips: str) -> Interface:
    addresses = [ip_address(ip) for ip in ips]
    return Interface(
        "eth0",
        1,
        tuple(ip for ip in addresses if ip.version == 4),
        tuple(ip for ip in addresses if ip.version == 6),
    )


ETHERNET = interface("192.0.2.5", "2001:db8::5")
LOOPBACK = interface("127.0.0.1", "::1")


@pytest.mark.parametrize(
    ("scheme", "bound", "names", "urls"),
    [
        ("https", SocketAddr("::", 443), ("r.example",), ("https://r.example/",)),
        ("https", SocketAddr("::", 8443), ("r.example",), ("https://r.example:8443/",)),
        ("http", SocketAddr("127.0.0.1", 3340), (), ("http://127.0.0.1:3340/",)),
        ("http", SocketAddr("::1", 80), (), ("http://[::1]/",)),
        ("http", SocketAddr("0.0.0.0", 80), (), ("http://192.0.2.5/",)),
        ("http", SocketAddr("::", 5), (), ("http://192.0.2.5:5/", "http://[2001:db8::5]:5/")),
    ],
)
def test_urls_are_what_users_type(
    scheme: str, bound: SocketAddr, names: tuple[str, ...], urls: tuple[str, ...]
) -> None:
    assert server_urls(scheme, bound, names, [LOOPBACK, ETHERNET]) == urls


def test_on_a_lonely_machine_it_is_loopback() -> None:
    assert server_urls("http", SocketAddr("::", 5), (), [LOOPBACK]) == ("http://127.0.0.1:5/",)


def test_there_are_not_too_many() -> None:
    names = tuple(f"n{number}.example" for number in range(9))
    assert len(server_urls("http", SocketAddr("::", 5), names, [])) == 4


def test_names_are_read_from_the_certificate() -> None:
    assert certificate_names(make_certificate("relay.example")[0]) == ("relay.example",)
    assert certificate_names(make_certificate("*.example")[0]) == ()
    assert certificate_names(b"no certificate") == ()
