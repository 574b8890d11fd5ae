"""Relay URLs: one normal form, the token kept apart, and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.relay_peers import ID

from tunnel_rs.proto.relay_addr import RelayAddr, RelayUrl
from tunnel_rs.values import EndpointId


@pytest.mark.parametrize(
    ("text", "normal", "endpoint"),
    [
        ("https://Relay.Example", "https://relay.example/", "https://relay.example/relay"),
        ("https://relay.example:443/", "https://relay.example/", "https://relay.example/relay"),
        ("http://127.0.0.1:33199", "http://127.0.0.1:33199/", "http://127.0.0.1:33199/relay"),
        ("https://[::1]:8443/x", "https://[::1]:8443/x", "https://[::1]:8443/relay"),
        ("http://h:80/", "http://h/", "http://h/relay"),
        (
            "https://use1-1.relay.n0.iroh.link./",
            "https://use1-1.relay.n0.iroh.link./",
            "https://use1-1.relay.n0.iroh.link./relay",
        ),
    ],
)
def test_a_url_has_one_normal_form_and_its_path_is_replaced(
    text: str, normal: str, endpoint: str
) -> None:
    relay = RelayUrl.parse(text)
    assert relay.text == str(relay) == normal and relay.endpoint == endpoint
    assert relay.ping_url == endpoint.removesuffix("relay") + "ping"
    assert relay.is_encrypted == text.startswith("https")


def test_the_token_is_kept_apart_and_not_shown() -> None:
    relay = RelayUrl.parse("https://relay.example/?token=hunter%2F2")
    assert relay.text == "https://relay.example/" and relay.token is not None
    assert relay.token.reveal() == "hunter/2" and "hunter" not in repr(relay)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("relay.example", "must start with"),
        ("ftp://relay.example", "must start with"),
        ("https://", "no host"),
        ("https://u:p@relay.example", "no user name"),
        ("https://relay.example/#x", "fragment"),
        ("https://relay.example:0/", "port 0"),
        ("https://relay.example:99999/", "not a URL"),
        ("https://[::1/", "not a URL"),
        ("https://re lay/", "neither a host name"),
        ("https://relay.example/?a=b", "one token="),
        ("https://relay.example/?token=hunter2&token=b", "one token="),
        ("https://relay.example/" + "x" * 3000, "2048 is the limit"),
    ],
)
def test_what_is_no_relay_url_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        RelayUrl.parse(text)
    assert "hunter2" not in str(caught.value)


@given(st.text(max_size=80))
def test_parsing_raises_nothing_but_value_errors_and_is_stable(text: str) -> None:
    try:
        relay = RelayUrl.parse(f"https://{text}")
    except ValueError:
        return
    assert RelayUrl.parse(relay.text).text == relay.text


def test_an_address_is_hashable_and_reads_well() -> None:
    address = RelayAddr("https://relay.example/", EndpointId(ID))
    assert {address: 1}[RelayAddr("https://relay.example/", EndpointId(ID))] == 1
    assert str(address) == "197f6b23e1 via https://relay.example/"
