import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel_rs.proto.ice_candidates import (
    CandidateType,
    IceCandidate,
    guesses,
    parse_candidate,
    parse_candidates,
)
from tunnel_rs.values import SocketAddr

HOST = "candidate:1 1 udp 2130706431 192.0.2.5 40000 typ host"


def host(ip: str, port: int = 40_000) -> IceCandidate:
    return IceCandidate("1", 1, SocketAddr(ip, port), CandidateType.HOST)


def reflexive(ip: str, port: int = 50_000) -> IceCandidate:
    return IceCandidate("2", 1, SocketAddr(ip, port), CandidateType.SERVER_REFLEXIVE)


def test_the_text_is_the_narrow_form_the_original_reads() -> None:
    candidate = parse_candidate(HOST)
    assert candidate is not None and str(candidate) == HOST
    relayed = IceCandidate(
        "ab", 7, SocketAddr("2001:db8::1", 9), CandidateType.RELAYED, SocketAddr("192.0.2.1", 5)
    )
    assert str(relayed) == "candidate:ab 1 udp 7 2001:db8::1 9 typ relay raddr 192.0.2.1 rport 5"
    assert parse_candidate(str(relayed)) == relayed


def test_what_the_original_writes_is_read() -> None:
    text = (
        "candidate:ffff7e65c0a80001 1 udp 1694498815 198.51.100.7 4242 typ srflx "
        "raddr 0.0.0.0 rport 0 ufrag abcdEFGH12345678"
    )
    candidate = parse_candidate(text, "abcdEFGH12345678")
    assert candidate is not None
    assert candidate.address == SocketAddr("198.51.100.7", 4242)
    assert candidate.related == SocketAddr("0.0.0.0", 0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "candidate:1 1 udp",
        HOST.replace("udp", "tcp"),
        HOST.replace("192.0.2.5", "printer.local"),
        HOST.replace("192.0.2.5", "fe80::1%eth0"),
        HOST.replace("40000", "0"),
        HOST.replace("40000", "65536"),
        HOST.replace("2130706431", "-1"),
        HOST.replace("2130706431", "99999999999"),
        HOST.replace(" 1 udp", " 2 udp"),
        HOST.replace("typ", "kind"),
        HOST.replace("host", "guess"),
        HOST.replace("candidate:1", "candidate:" + "1" * 33),
        HOST.replace("192.0.2.5", "224.0.0.251"),
        HOST.replace("192.0.2.5", "255.255.255.255"),
        HOST.replace("192.0.2.5", "0.0.0.0"),
        HOST.replace("192.0.2.5", "ff02::fb"),
        HOST + " ufrag other",
        HOST + " x" * 300,
    ],
)
def test_a_candidate_of_no_use_is_skipped(text: str) -> None:
    assert parse_candidate(text, "mine") is None


@given(st.text(max_size=200))
def test_no_text_makes_the_parser_fail(text: str) -> None:
    parse_candidate("candidate:" + text, "u")


def test_the_best_candidates_are_kept_one_for_each_address() -> None:
    texts = [f"candidate:1 1 udp {n} 192.0.2.{n} 4000 typ host" for n in range(1, 100)]
    found = parse_candidates([*texts, texts[98], "nonsense"], "u", 5)
    assert [c.priority for c in found] == [99, 98, 97, 96, 95]


def test_a_host_port_is_tried_at_the_reflexive_address() -> None:
    candidates = [host("10.0.0.2"), host("10.1.0.2", 41_000), reflexive("198.51.100.7")]
    assert guesses(candidates) == (
        SocketAddr("198.51.100.7", 40_000),
        SocketAddr("198.51.100.7", 41_000),
    )


def test_nothing_is_guessed_for_public_hosts_and_ipv6() -> None:
    assert guesses([host("198.51.100.7"), reflexive("198.51.100.7")]) == ()
    assert guesses([host("2001:db8::2"), reflexive("2001:db8::7")]) == ()
    assert guesses([host("10.0.0.2", 50_000), reflexive("198.51.100.7")]) == ()
