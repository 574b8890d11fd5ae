from datetime import UTC, datetime
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel_rs.proto.grants import UNLIMITED, Grant, Rule, parse_grant, unreachable_rule
from tunnel_rs.values import Protocol

TEN = ip_network("10.0.0.0/8")


def test_no_options_mean_no_limits() -> None:
    assert parse_grant([]) == UNLIMITED
    assert UNLIMITED.permitted(Protocol.UDP, ["10.0.0.1"], 53) == ["10.0.0.1"]
    assert not UNLIMITED.has_expired(1e12)


def test_all_options_together() -> None:
    words = "name=alice expires=2027-01-31 tcp=10.0.0.0/8:22 max-sessions=4 bandwidth=20mbit"
    assert parse_grant(words.split()) == Grant(
        name="alice",
        expires=datetime(2027, 2, 1, tzinfo=UTC).timestamp(),
        tcp=(Rule(TEN, 22, 22),),
        udp=(),
        max_sessions=4,
        bandwidth=2_500_000,
    )


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2027-01-31", datetime(2027, 2, 1, tzinfo=UTC)),
        ("2027-01-31T18:00Z", datetime(2027, 1, 31, 18, tzinfo=UTC)),
        ("2027-01-31T18:00:30+02:00", datetime(2027, 1, 31, 16, 0, 30, tzinfo=UTC)),
    ],
)
def test_a_day_lasts_to_its_end_and_a_time_is_exact(text: str, moment: datetime) -> None:
    grant = parse_grant([f"expires={text}"])
    assert grant.expires == moment.timestamp()
    assert not grant.has_expired(moment.timestamp() - 1)
    assert grant.has_expired(moment.timestamp())


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("10.0.0.0/8", Rule(TEN)),
        ("10.0.0.0/8:80-90", Rule(TEN, 80, 90)),
        ("10.0.0.7", Rule(ip_network("10.0.0.7/32"))),
        ("*:22", Rule(None, 22, 22)),
        ("*", Rule(None)),
        ("fd00::/8", Rule(ip_network("fd00::/8"))),
        ("[fd00::/8]:443", Rule(ip_network("fd00::/8"), 443, 443)),
    ],
)
def test_the_forms_of_a_rule(text: str, rule: Rule) -> None:
    assert parse_grant([f"tcp={text}"]).tcp == (rule,)


def test_who_lists_one_protocol_denies_the_other() -> None:
    grant = parse_grant(["udp=*:53"])
    assert grant.permitted(Protocol.TCP, ["10.0.0.1"], 53) == []
    assert grant.permitted(Protocol.UDP, ["10.0.0.1"], 53) == ["10.0.0.1"]
    assert parse_grant(["tcp=none"]) == Grant(tcp=(), udp=())


def test_a_rule_judges_address_and_port() -> None:
    grant = parse_grant(["tcp=10.0.0.0/8:20-22,[fd00::/8]:443,192.0.2.1"])
    ips = ["10.1.2.3", "192.0.2.1", "192.0.2.2", "fd00::1"]
    assert grant.permitted(Protocol.TCP, ips, 22) == ["10.1.2.3", "192.0.2.1"]
    assert grant.permitted(Protocol.TCP, ips, 443) == ["192.0.2.1", "fd00::1"]
    assert grant.permitted(Protocol.TCP, ips, 19) == ["192.0.2.1"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("name", "name has no value; write name=alice, without blanks"),
        ("name=", "name has no value; write name=alice"),
        ("name = alice", "name has no value; write name=alice, without blanks"),
        ("name=a name=b", "name is given twice; keep one of them"),
        ("name=al/ice", "name: a name has 1 to 64 letters"),
        ("Name=alice", "unknown option 'Name'; did you mean name?"),
        ("max_sessions=3", "unknown option 'max_sessions'; did you mean max-sessions?"),
        ("expire=2027-01-31", "unknown option 'expire'; there are name, expires, tcp"),
        ("expires=31.1.2027", "expires: '31.1.2027' is not a date like 2027-01-31"),
        ("expires=2027-02-30", "expires: '2027-02-30' is not a date"),
        ("expires=2027-01-31T18:00", "expires: '2027-01-31T18:00' has no time zone"),
        ("tcp=10.0.0.0/8,", "tcp: an entry is empty; write networks with one comma"),
        ("tcp=10.0.0.1/8", "tcp: '10.0.0.1/8' has host bits set"),
        ("tcp=10.0.0.0/8:", "tcp: '10.0.0.0/8:': the port behind the colon is missing"),
        ("tcp=10.0.0.0/8:ssh", "tcp: 'ssh' is no port, nor ports like 8000-8099"),
        ("tcp=*:90-80", "tcp: ports '90-80' are not from 1 to 65535, the lower one first"),
        ("tcp=*:0", "tcp: ports '0' are not from 1 to 65535"),
        ("tcp=[fd00::/8", "tcp: '[fd00::/8': write an IPv6 network with ports as"),
        ("tcp=example.com:22", "tcp: 'example.com' is not a network"),
        ("max-sessions=0", "max-sessions: '0' is not a whole number from 1"),
        ("max-sessions=many", "max-sessions: 'many' is not a whole number from 1"),
        ("bandwidth=10", "bandwidth: '10' is not a number of bits a second with its unit"),
        ("bandwidth=10MB", "bandwidth: '10MB' is not a number of bits a second"),
        ("bandwidth=1kbit", "bandwidth: '1kbit' is not from 8kbit"),
        ("tcp=" + "*," * 300, "tcp: 301 networks; 256 is the limit"),
    ],
)
def test_mistakes_are_told_with_what_to_write(words: str, says: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_grant(words.split())
    assert str(caught.value).startswith(says)


@pytest.mark.parametrize(
    ("text", "rate"), [("500kbit", 62_500), ("1.5mbit", 187_500), ("2Gbit", 250_000_000)]
)
def test_bandwidth_is_in_bits(text: str, rate: float) -> None:
    assert parse_grant([f"bandwidth={text}"]).bandwidth == rate


def test_a_rule_outside_all_the_server_allows_is_found() -> None:
    rules = parse_grant(["tcp=10.0.0.0/8:22,*:80,192.0.2.0/24,fd00::/8"]).tcp
    everything = (TEN, ip_network("192.0.0.0/16"), ip_network("fd00::/16"))
    assert unreachable_rule(rules, everything) is None
    assert unreachable_rule(rules, everything[:2]) == Rule(ip_network("fd00::/8"))
    assert unreachable_rule(rules, ()) == Rule(TEN, 22, 22)
    assert unreachable_rule(None, ()) is None


@given(st.lists(st.text(max_size=30), max_size=4))
def test_no_words_raise_anything_but_value_errors(words: list[str]) -> None:
    try:
        parse_grant(words)
    except ValueError as error:
        assert "\n" not in str(error)


@given(
    st.sampled_from(["name", "expires", "tcp", "udp", "max-sessions", "bandwidth"]),
    st.text(max_size=30),
)
def test_no_value_raises_anything_but_value_errors(key: str, value: str) -> None:
    try:
        parse_grant([f"{key}={value}"])
    except ValueError as error:
        assert str(error).startswith(key)
