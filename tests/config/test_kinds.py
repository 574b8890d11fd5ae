import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.samples import BAD_TOKEN, ENDPOINT_ID, SECRET_KEY, TOKEN

from tunnel_rs.config import kinds
from tunnel_rs.config.kinds import Kind, ListenAddress, pair
from tunnel_rs.forward.settings import Tunnel
from tunnel_rs.proto.relay_addr import RelayUrl
from tunnel_rs.proto.transport_settings import CongestionController
from tunnel_rs.values import HostPort, Protocol, Secret, SocketAddr, SourceUrl

NUMBER = kinds.integer(1, 100, "bytes")
SECONDS = kinds.seconds(0.1, 600)


def refusal(kind: Kind[object], *texts: str) -> str:
    with pytest.raises(ValueError) as refused:
        kind.from_texts(texts)
    return str(refused.value)


def toml_refusal(kind: Kind[object], value: object) -> str:
    with pytest.raises(ValueError) as refused:
        kind.from_toml(value)
    return str(refused.value)


@pytest.mark.parametrize(
    ("kind", "value", "problem"),
    [
        (NUMBER, "10", "expected a whole number of bytes from 1 to 100, got a string"),
        (NUMBER, True, "expected a whole number of bytes from 1 to 100, got a boolean"),
        (NUMBER, 1.5, "expected a whole number of bytes from 1 to 100, got a float"),
        (NUMBER, 101, "101 is not a whole number of bytes from 1 to 100"),
        (SECONDS, "10", "expected a number of seconds from 0.1 to 600, got a string"),
        (SECONDS, True, "expected a number of seconds from 0.1 to 600, got a boolean"),
        (SECONDS, float("nan"), "nan is not a number of seconds from 0.1 to 600"),
        (SECONDS, 0, "0 is not a number of seconds from 0.1 to 600"),
        (kinds.SWITCH, "true", "expected true or false, got a string"),
        (kinds.SWITCH, 1, "expected true or false, got an integer"),
        (kinds.FILE, 1, "expected a string (a file name), got an integer"),
        (kinds.TOKEN, 7, "expected a string (a token of 18 characters), got an integer"),
        (
            kinds.TOKENS,
            TOKEN,
            "expected an array of strings (a token of 18 characters), got a string",
        ),
        (
            kinds.TOKENS,
            [TOKEN, {}],
            "expected a string (a token of 18 characters) as item 2, got a table",
        ),
        (
            kinds.TOKENS,
            [TOKEN, BAD_TOKEN],
            "item 2: the token's check character does not fit: a typing error; copy it again",
        ),
        (
            kinds.ENDPOINT_ID,
            datetime.date(2026, 1, 1),
            "expected a string (64 hex digits or 52 base32 characters), got a date or time",
        ),
        (
            kinds.NETWORKS,
            ["10.0.0.1/8"],
            "item 1: '10.0.0.1/8' has host bits set; write 10.0.0.0/8 or 10.0.0.1",
        ),
        (kinds.TUNNELS, {}, "expected an array of tables with source and target, got a table"),
        (
            kinds.TUNNELS,
            ["x"],
            "expected a table with source and target as tunnel 1, got a string",
        ),
    ],
)
def test_a_wrong_value_in_a_file_says_what_is_expected(
    kind: Kind[object], value: object, problem: str
) -> None:
    assert toml_refusal(kind, value) == problem


@pytest.mark.parametrize(
    ("kind", "text", "problem"),
    [
        (NUMBER, "ten", "'ten' is not a whole number of bytes from 1 to 100"),
        (NUMBER, "1_0", "'1_0' is not a whole number of bytes from 1 to 100"),
        (NUMBER, "٣", "'٣' is not a whole number of bytes from 1 to 100"),
        (NUMBER, "-1", "-1 is not a whole number of bytes from 1 to 100"),
        (SECONDS, "soon", "'soon' is not a number of seconds from 0.1 to 600"),
        (SECONDS, "inf", "'inf' is not a number of seconds from 0.1 to 600"),
        (SECONDS, "601", "'601' is not a number of seconds from 0.1 to 600"),
        (kinds.FILE, "", "a file name is needed, this is empty or holds a NUL"),
        (
            kinds.FILE,
            "~nobody-of-that-name/x",
            "'~nobody-of-that-name/x': the home directory in it is not known",
        ),
        (kinds.SECRET_KEY, "AAAA", "a secret key has 32 bytes, this has 3"),
        (kinds.BIND_ADDRESS, "localhost:0", "'localhost' is a name; an IP address is needed"),
        (kinds.PEER_ADDRESSES, "192.0.2.1:0", "port 0 is outside 1-65535"),
        (
            kinds.LISTEN_ADDRESS,
            "http://x:1",
            "'http://x:1' must be host:port, with tcp:// or udp:// before it at most",
        ),
        (
            kinds.CONGESTION_CONTROLLER,
            "bbr",
            "'bbr' is not available in this version; use 'cubic' or 'newreno'",
        ),
        (
            kinds.CONGESTION_CONTROLLER,
            "cubik",
            "'cubik' is not one of cubic, newreno (did you mean 'cubic'?)",
        ),
        (
            kinds.DNS_SERVER,
            "https://dns.example/",
            "'https://dns.example/' has no path; most servers want https://dns.example/pkarr",
        ),
        (
            kinds.RELAYS,
            "https://relay.example/?key=hush",
            "'https://relay.example/': the only parameter a relay URL may have is one token=",
        ),
        (
            kinds.RELAY_TOKEN,
            "two words",
            "an access token has only visible ASCII characters",
        ),
        (
            kinds.TUNNELS,
            "tcp://a:1",
            "tunnels are written in a file; use --source and --target here",
        ),
    ],
)
def test_a_wrong_text_says_what_is_expected(kind: Kind[object], text: str, problem: str) -> None:
    assert refusal(kind, text) == problem


@pytest.mark.parametrize("wrong", ["abcd" * 20, BAD_TOKEN, "iabc", "xabcdefghijklmnopg"])
def test_a_refused_secret_is_never_quoted(wrong: str) -> None:
    for kind in (kinds.TOKEN, kinds.TOKENS, kinds.SECRET_KEY):
        assert wrong not in refusal(kind, wrong)


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({"source": "tcp://a:1"}, "tunnel 2: target is missing"),
        ({"target": "a:1"}, "tunnel 2: source is missing"),
        (
            {"source": "tcp://a:1", "tarket": "a:1"},
            "tunnel 2: unknown key 'tarket' (did you mean 'target'?)",
        ),
        (
            {"source": "a:1", "target": "a:1"},
            "tunnel 2, source: 'a:1' must start with tcp:// or udp://",
        ),
        (
            {"source": "tcp://a:1", "target": 5},
            "tunnel 2, target: expected a string (host:port), got an integer",
        ),
        (
            {"source": "tcp://a:1", "target": "udp://b:2"},
            "tunnel 2, target: udp://b:2 and the source tcp://a:1 differ in protocol; "
            "make them the same",
        ),
    ],
)
def test_a_wrong_tunnel_says_which_one_and_why(entry: dict[str, object], problem: str) -> None:
    good = {"source": "tcp://a:1", "target": "127.0.0.1:1"}
    assert toml_refusal(kinds.TUNNELS, [good, entry]) == problem


def test_values_are_read_from_texts_and_from_toml() -> None:
    assert NUMBER.from_texts(["42"]) == NUMBER.from_toml(42) == 42
    assert SECONDS.from_texts(["2.5"]) == SECONDS.from_toml(2.5) == 2.5
    assert SECONDS.from_toml(3) == 3.0
    assert kinds.SWITCH.from_texts(["false"]) is kinds.SWITCH.from_toml(False) is False
    assert kinds.TOKENS.from_toml([TOKEN]) == (Secret(TOKEN),)
    assert str(kinds.ENDPOINT_ID.from_texts([ENDPOINT_ID])) == ENDPOINT_ID
    assert len(kinds.SECRET_KEY.from_texts([SECRET_KEY]).reveal()) == 32
    assert kinds.SOURCES.from_toml("udp://h:5") == (SourceUrl(Protocol.UDP, HostPort("h", 5)),)
    assert kinds.BIND_ADDRESS.from_texts(["[::]:0"]) == SocketAddr("::", 0)
    assert kinds.DNS_SERVER.from_toml("none") == "none"
    assert kinds.DNS_SERVER.from_texts(["http://[::1]:80/pkarr/"]) == "http://[::1]:80/pkarr"
    assert kinds.RELAYS.from_texts(["none"]) == (None,)
    assert kinds.RELAYS.from_toml(["https://Relay.Example?token=t"]) == (
        RelayUrl("https://relay.example/", Secret("t")),
    )
    assert kinds.RELAY_TOKEN.from_toml("hush") == Secret("hush")
    assert kinds.FORCED.from_texts(["0"]) is True


def test_both_spellings_of_newreno_are_read() -> None:
    for spelling in ("newreno", "new_reno"):
        assert kinds.CONGESTION_CONTROLLER.from_toml(spelling) is CongestionController.NEW_RENO


def test_a_repeated_option_keeps_its_order_and_a_single_one_its_last_value() -> None:
    sources = kinds.SOURCES.from_texts(["tcp://b:2", "tcp://a:1"])
    assert [str(source) for source in sources] == ["tcp://b:2", "tcp://a:1"]
    assert NUMBER.from_texts(["1", "2"]) == 2


def test_the_home_directory_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert kinds.FILE.from_texts(["~/x.key"]) == Path("/home/somebody/x.key")
    assert kinds.FILE.from_toml("./x.key") == Path("x.key")


def test_a_target_may_repeat_the_protocol_of_its_source() -> None:
    source = SourceUrl.parse("udp://10.0.0.1:53")
    target = ListenAddress.parse("udp://127.0.0.1:5353")
    assert str(target) == "udp://127.0.0.1:5353"
    assert pair(source, target) == Tunnel(source, HostPort("127.0.0.1", 5353))
    assert pair(source, ListenAddress.parse("[::1]:0")).target == HostPort("::1", 0)


@given(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary()))
def test_any_value_is_read_or_refused(value: object) -> None:
    for kind in (NUMBER, SECONDS, kinds.SWITCH, kinds.FILE, kinds.TUNNELS, kinds.NETWORKS):
        try:
            kind.from_toml(value)
        except ValueError as error:
            assert "\n" not in str(error)


@given(st.text())
def test_any_text_is_read_or_refused_on_one_line(text: str) -> None:
    for kind in (NUMBER, SECONDS, kinds.FILE, kinds.LISTEN_ADDRESS, kinds.CONGESTION_CONTROLLER):
        try:
            kind.from_texts([text])
        except ValueError as error:
            assert "\n" not in str(error)
