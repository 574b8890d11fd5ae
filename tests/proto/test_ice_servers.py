import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel_rs.proto.ice_servers import (
    TurnServer,
    TurnTransport,
    parse_stun_server,
    parse_turn_server,
)
from tunnel_rs.values import HostPort, Secret


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("stun.example.org", HostPort("stun.example.org", 3478)),
        ("stun:192.0.2.1:19302", HostPort("192.0.2.1", 19302)),
        ("[2001:db8::1]", HostPort("2001:db8::1", 3478)),
        ("[2001:db8::1]:5", HostPort("2001:db8::1", 5)),
    ],
)
def test_a_stun_server_may_leave_out_the_port(text: str, address: HostPort) -> None:
    assert parse_stun_server(text) == address


@pytest.mark.parametrize("text", ["", ":3478", "a b", "host:0", "stun:"])
def test_a_wrong_stun_server_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_stun_server(text)


@pytest.mark.parametrize(
    ("text", "port", "transport"),
    [
        ("turn:u:p@host", 3478, TurnTransport.UDP),
        ("turn:u:p@host:1?transport=udp", 1, TurnTransport.UDP),
        ("turn:u:p@host?transport=tcp", 3478, TurnTransport.TCP),
        ("turns:u:p@host", 5349, TurnTransport.TLS),
        ("turns:u:p@host:443?transport=tcp", 443, TurnTransport.TLS),
    ],
)
def test_a_turn_server_has_credentials_and_a_transport(
    text: str, port: int, transport: TurnTransport
) -> None:
    assert parse_turn_server(text) == TurnServer(
        HostPort("host", port), "u", Secret("p"), transport
    )


def test_a_password_may_hold_any_character_and_is_never_shown() -> None:
    server = parse_turn_server("turn:bob:a:b@c?d@host:1")
    assert server.password.reveal() == "a:b@c?d" and server.username == "bob"
    assert str(server) == "turn:bob:***@host:1"
    assert "a:b" not in repr(server)


@pytest.mark.parametrize(
    "text",
    [
        "host",
        "turn:host",
        "turn:sesame@host",
        "turn::sesame@host",
        "turn:u:@host",
        "turn:u:sesame@",
        "turn:u:sesame@host?transport=sctp",
        "turns:u:sesame@host?transport=udp",
        "http:u:sesame@host",
        "turn:u:sesame@host:0",
    ],
)
def test_a_wrong_turn_server_is_refused_without_its_password(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_turn_server(text)
    assert "sesame" not in str(caught.value)


@given(st.text(max_size=100))
def test_no_text_raises_anything_but_a_value_error(text: str) -> None:
    for parse in (parse_stun_server, parse_turn_server):
        try:
            parse(text)  # type: ignore[operator]
        except ValueError:
            pass
