import pytest

from tunnel_rs.iroh.netcheck_findings import (
    Buffers,
    Discovery,
    Family,
    Findings,
    Mapping,
    Relay,
)
from tunnel_rs.values import SocketAddr

BOUND = SocketAddr("0.0.0.0", 5)
ONE, TWO = SocketAddr("198.51.100.1", 1), SocketAddr("198.51.100.2", 1)
SEEN, SEEN_ELSEWHERE = SocketAddr("203.0.113.1", 50), SocketAddr("203.0.113.1", 51)


def sees(server: SocketAddr, address: SocketAddr) -> Mapping:
    return Mapping(str(server), "QUIC", server, address, True)


def silent(server: SocketAddr) -> Mapping:
    return Mapping(str(server), "STUN", server, problem="no answer")


def family(*mappings: Mapping, route: bool = True, own: tuple[str, ...] = ()) -> Family:
    return Family("IPv4", ("192.168.1.5", *own), route, BOUND, mappings)


def findings(**given: object) -> Findings:
    nothing: dict[str, object] = {
        "families": (family(),),
        "relays": (),
        "discovery": None,
        "nats": (),
        "unresolved": (),
        "clock_skew": None,
        "buffers": None,
        "elapsed": 1.0,
    }
    return Findings(**{**nothing, **given})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("found", "answered", "depends", "nat"),
    [
        (family(), None, None, None),
        (family(silent(ONE)), False, None, None),
        (family(sees(ONE, SEEN)), True, None, True),
        (family(sees(ONE, SEEN), sees(TWO, SEEN)), True, False, True),
        (family(sees(ONE, SEEN), sees(TWO, SEEN_ELSEWHERE)), True, True, True),
        (family(sees(ONE, SEEN), sees(ONE, SEEN), silent(TWO)), True, None, True),
        (family(sees(ONE, SocketAddr("192.168.1.5", 5))), True, None, False),
        (family(sees(ONE, SocketAddr("127.0.0.1", 5))), True, None, False),
        (family(Mapping("s", "QUIC", ONE, None, True, "bad certificate")), True, None, None),
    ],
)
def test_a_family_is_judged_by_how_servers_see_it(
    found: Family, answered: bool | None, depends: bool | None, nat: bool | None
) -> None:
    assert found.answered is answered
    assert found.depends_on_destination is depends
    assert found.behind_nat is nat


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"families": (family(sees(ONE, SEEN)),)}, "UDP goes out and answers come in (IPv4)."),
        ({"families": (family(silent(ONE)),)}, "a firewall seems to block UDP"),
        ({"families": (family(route=False),)}, "no way to the internet"),
        ({}, "Nobody was asked over UDP"),
        ({"families": (family(sees(ONE, SEEN)),)}, "a second server"),
        ({"families": (family(sees(ONE, SEEN), sees(TWO, SEEN)),)}, "will mostly work"),
        ({"families": (family(sees(ONE, SEEN), sees(TWO, SEEN_ELSEWHERE)),)}, "symmetric"),
        ({"families": (family(sees(ONE, SEEN), own=(SEEN.ip,)),)}, "this machine itself"),
        ({"families": (family(silent(ONE)),)}, "no server saw our UDP"),
        ({}, "No relay was looked at"),
        ({"relays": (Relay("u", None, False, "is down"),)}, "No relay can be used: u is down."),
        (
            {"relays": (Relay("far", 0.2, True), Relay("near", 0.1, True))},
            "2 of 2 relay(s) can be used; the nearest is near.",
        ),
        (
            {"relays": (Relay("u", 0.1, True), Relay("v", None, False, "is down"))},
            "1 of 2 relay(s) can be used; the nearest is u; v is down.",
        ),
        ({}, "Discovery over the internet was not looked at"),
        ({"discovery": Discovery("p", "p", 1.0, 1.0)}, "Discovery works"),
        ({"discovery": Discovery("p", "p", problem="p is down")}, "alone: p is down."),
        ({"clock_skew": -3.0}, "The clock is right."),
        ({"clock_skew": 90.0}, "The clock is 90 s ahead"),
        ({"clock_skew": -3600.0}, "The clock is 3600 s behind"),
        ({"buffers": Buffers(4 << 20, 4 << 20, 4 << 20)}, "large enough"),
        ({"buffers": Buffers(4 << 20, 212_992, 4 << 20)}, "net.core.rmem_max"),
    ],
)
def test_every_subject_gets_a_sentence(given: dict[str, object], sentence: str) -> None:
    assert sum(sentence in said for said in findings(**given).meaning()) == 1


def test_what_nobody_knows_is_not_said() -> None:
    assert len(findings().meaning()) == 4
