import json
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.splitting import mutations

from tunnel_rs.errors import ProtocolError
from tunnel_rs.proto.vpn_handshake import (
    GSO,
    Lease,
    VpnRequest,
    VpnResponse,
    decode_request,
    decode_response,
    encode_request,
    encode_response,
)
from tunnel_rs.values import Secret

TOKEN = Secret("iAAAAAAAAAAAAAAAAA")
LEASE4 = Lease(IPv4Address("10.0.0.2"), IPv4Network("10.0.0.0/24"), IPv4Address("10.0.0.1"))
LEASE6 = Lease(IPv6Address("fd00::2"), IPv6Network("fd00::/64"), IPv6Address("fd00::1"))
V4 = {"assigned_ip": "10.0.0.2", "network": "10.0.0.0/24", "server_ip": "10.0.0.1"}
V6 = {"assigned_ip6": "fd00::2", "network6": "fd00::/64", "server_ip6": "fd00::1"}


def body(message: bytes) -> bytes:
    assert int.from_bytes(message[:4], "big") == len(message) - 4
    return message[4:]


def response(**fields: Any) -> VpnResponse:
    return decode_response(json.dumps({"version": 1, "accepted": True, **fields}).encode())


def test_a_request_has_the_bytes_of_the_original() -> None:
    assert body(encode_request(VpnRequest(2**64 - 1, TOKEN))) == (
        b'{"version":1,"device_id":18446744073709551615,"auth_token":"iAAAAAAAAAAAAAAAAA"}'
    )
    assert body(encode_request(VpnRequest(0))) == b'{"version":1,"device_id":0}'


def test_capabilities_follow_what_the_original_knows() -> None:
    request = VpnRequest(7, TOKEN, frozenset({GSO, "b"}))
    assert body(encode_request(request)).endswith(b'"caps":["b","gso1"]}')


@given(st.integers(0, 2**64 - 1), st.booleans(), st.frozensets(st.text(max_size=5), max_size=5))
def test_a_request_comes_back(device_id: int, token: bool, capabilities: frozenset[str]) -> None:
    capabilities = frozenset(
        c for c in capabilities if not any("\ud800" <= x <= "\udfff" for x in c)
    )
    request = VpnRequest(device_id, TOKEN if token else None, capabilities)
    assert decode_request(body(encode_request(request))) == request


@pytest.mark.parametrize(
    "fields",
    ["{}", '{"device_id":-1}', '{"device_id":18446744073709551616}', '{"device_id":"1"}',
     '{"device_id":true}', '{"device_id":1.0}', '{"device_id":1,"auth_token":5}',
     '{"device_id":1,"caps":"gso1"}', '{"device_id":1,"caps":[1]}', "[]", "", "\xff"],
)  # fmt: skip
def test_a_wrong_request_is_refused(fields: str) -> None:
    with pytest.raises(ProtocolError):
        decode_request(fields.encode("latin-1"))


def test_no_error_holds_the_token() -> None:
    with pytest.raises(ProtocolError) as caught:
        decode_request(b'{"device_id":"x","auth_token":"iAAAAAAAAAAAAAAAAA"}')
    assert TOKEN.reveal() not in repr(caught.value)


@pytest.mark.parametrize(
    "sent",
    [
        VpnResponse(True, LEASE4),
        VpnResponse(True, None, LEASE6),
        VpnResponse(
            True,
            LEASE4,
            LEASE6,
            capabilities=frozenset({GSO}),
            resolvers=(IPv4Address("10.0.0.1"), IPv6Address("fd00::1")),
            domains=("lan.example",),
        ),
        VpnResponse(False, reason="Server full", retry=True),
        VpnResponse(False),
    ],
)
def test_a_response_comes_back(sent: VpnResponse) -> None:
    assert decode_response(body(encode_response(sent))) == sent


def test_a_response_has_the_fields_of_the_original() -> None:
    assert json.loads(body(encode_response(VpnResponse(True, LEASE4, LEASE6)))) == {
        "version": 1, "accepted": True, **V4, **V6
    }  # fmt: skip


def test_host_bits_in_the_network_are_tolerated() -> None:
    assert response(**{**V4, "network": "10.0.0.5/24"}).lease4 == LEASE4


def test_the_version_and_unknown_fields_do_not_matter() -> None:
    assert response(**V4, version=7, later={"x": 1}).lease4 == LEASE4


@pytest.mark.parametrize(
    "changes",
    [
        {"assigned_ip": None},
        {"network": None},
        {"server_ip": None},
        {"assigned_ip": "10.0.1.2"},
        {"server_ip": "10.0.1.1"},
        {"assigned_ip": "10.0.0.1"},
        {"assigned_ip": "fd00::2"},
        {"network": "0.0.0.0/0"},
        {"network": "10.0.0.0/33"},
        {"assigned_ip": "x"},
        {"dns": ["0.0.0.0"]},
        {"dns": ["224.0.0.1"]},
        {"dns": ["name"]},
        {"dns": ["fe80::1%eth0"]},
        {"dns": ["10.0.0.1"] * 9},
        {"dns_domains": ["a b"]},
        {"dns_domains": ["a\nnameserver 1.2.3.4"]},
        {"dns_domains": ["x.example"] * 33},
    ],
)
def test_a_wrong_lease_or_resolver_is_refused(changes: dict[str, object]) -> None:
    fields = {key: value for key, value in {**V4, **changes}.items() if value is not None}
    with pytest.raises(ProtocolError):
        response(**fields)


@pytest.mark.parametrize(
    ("address", "network", "server"),
    [
        ("127.0.0.2", "127.0.0.0/8", "127.0.0.1"),
        ("224.0.0.2", "224.0.0.0/8", "224.0.0.1"),
        ("fe80::2%x", "fe80::/64", "fe80::1"),
        ("::1", "::/16", "::2"),
    ],
)
def test_addresses_that_no_client_can_have_are_refused(
    address: str, network: str, server: str
) -> None:
    suffix = "6" if ":" in address else ""
    names = ("assigned_ip", "network", "server_ip")
    with pytest.raises(ProtocolError):
        response(**{n + suffix: v for n, v in zip(names, (address, network, server), strict=True)})


def test_no_address_at_all_is_refused() -> None:
    with pytest.raises(ProtocolError, match="no address"):
        response()


def test_a_reason_is_fit_to_be_shown() -> None:
    message = {"version": 1, "accepted": False, "reject_reason": "no\x1b[31m\n" + "x" * 9000}
    reason = decode_response(json.dumps(message).encode()).reason
    assert reason is not None and reason.isprintable() and len(reason) <= 512


@given(mutations(body(encode_response(VpnResponse(True, LEASE4, LEASE6)))))
def test_a_damaged_response_is_read_or_refused(damaged: bytes) -> None:
    try:
        decode_response(damaged)
    except ProtocolError:
        pass


@given(mutations(body(encode_request(VpnRequest(5, TOKEN)))))
def test_a_damaged_request_is_read_or_refused(damaged: bytes) -> None:
    try:
        decode_request(damaged)
    except ProtocolError:
        pass
