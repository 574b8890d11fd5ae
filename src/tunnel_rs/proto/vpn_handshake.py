"""The exchange that opens a VPN connection, wire version 1 (spec `vpn.md` section 1.2).

One message each way on the first stream: 4-byte big-endian length, then JSON. Neither side checks
the version and both ignore unknown fields, so extensions are further fields: `caps` (what the
sender can do; used when both say it), `dns` and `dns_domains` (resolvers of the VPN), `retry`
(the refusal is for now only).
"""

import json
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
)
from typing import Generic, TypeVar

from tunnel_rs.errors import ProtocolError
from tunnel_rs.proto.json_fields import JsonFields, is_unicode
from tunnel_rs.proto.messages import MAX_MESSAGE, cut_reason, shown_reason
from tunnel_rs.values import Secret, check_host

ALPN = "tunnel-vpn/1"
VERSION = 1

GSO = "gso1"
"""Capability: super-packets with virtio headers may be sent to us."""

MAX_CAPABILITIES = 32
MAX_RESOLVERS = 8
MAX_DOMAINS = 32

_MAX_DEVICE_ID = 2**64 - 1
_WIDEST = {4: 8, 6: 16}
"""Shortest prefix a server may assign: anything wider would capture a client's whole traffic."""

Address = IPv4Address | IPv6Address
A = TypeVar("A", IPv4Address, IPv6Address)
N = TypeVar("N", IPv4Network, IPv6Network)


@dataclass(frozen=True, slots=True)
class VpnRequest:
    """Client to server. `device_id`: 64 random bits, kept while the client runs."""

    device_id: int
    auth_token: Secret[str] | None = None
    capabilities: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Lease(Generic[A, N]):
    """One family's part of an answer: the client's address, its network, the server in it."""

    address: A
    network: N
    server: A


Lease4 = Lease[IPv4Address, IPv4Network]
Lease6 = Lease[IPv6Address, IPv6Network]


@dataclass(frozen=True, slots=True)
class VpnResponse:
    """Server to client: let in with one lease or both, or refused with a reason."""

    accepted: bool
    lease4: Lease4 | None = None
    lease6: Lease6 | None = None
    reason: str | None = None
    retry: bool = False
    """A refusal that may not last: the server is full."""

    capabilities: frozenset[str] = frozenset()
    resolvers: tuple[Address, ...] = ()
    domains: tuple[str, ...] = ()


def encode_request(request: VpnRequest) -> bytes:
    """With length prefix. The fields are in the original's order."""
    fields: dict[str, object] = {"version": VERSION, "device_id": request.device_id}
    if request.auth_token is not None:
        fields["auth_token"] = request.auth_token.reveal()
    if request.capabilities:
        fields["caps"] = sorted(request.capabilities)
    return _encode(fields)


def encode_response(response: VpnResponse) -> bytes:
    """With length prefix; absent fields are left out."""
    fields: dict[str, object] = {"version": VERSION, "accepted": response.accepted}
    for lease, suffix in ((response.lease4, ""), (response.lease6, "6")):
        if lease is not None:
            fields[f"assigned_ip{suffix}"] = str(lease.address)
            fields[f"network{suffix}"] = str(lease.network)
            fields[f"server_ip{suffix}"] = str(lease.server)
    if response.reason is not None:
        fields["reject_reason"] = cut_reason(response.reason)
    if response.retry:
        fields["retry"] = True
    if response.capabilities:
        fields["caps"] = sorted(response.capabilities)
    if response.resolvers:
        fields["dns"] = [str(address) for address in response.resolvers]
    if response.domains:
        fields["dns_domains"] = list(response.domains)
    return _encode(fields)


def _encode(fields: dict[str, object]) -> bytes:
    if any(isinstance(value, str) and not is_unicode(value) for value in fields.values()):
        raise ValueError("a message with lone surrogates cannot be sent")
    body = json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()
    if len(body) > MAX_MESSAGE:
        raise ValueError(f"a message of {len(body)} bytes is longer than {MAX_MESSAGE}")
    return len(body).to_bytes(4, "big") + body


def decode_request(body: bytes) -> VpnRequest:
    """Read a message without its length prefix. Raises ProtocolError, never holding the token."""
    fields = JsonFields("VPN request", body)
    device_id = fields.required("device_id", int)
    if not 0 <= device_id <= _MAX_DEVICE_ID:
        raise ProtocolError("the device_id of the VPN request has more than 64 bits")
    token = fields.optional("auth_token", str)
    return VpnRequest(device_id, None if token is None else Secret(token), _capabilities(fields))


def decode_response(body: bytes) -> VpnResponse:
    """Read a message without its length prefix. Raises ProtocolError, also when an accepting
    answer has no lease or half of one."""
    fields = JsonFields("VPN response", body)
    if not fields.required("accepted", bool):
        reason = fields.optional("reject_reason", str)
        retry = fields.optional("retry", bool) or False
        shown = None if reason is None else shown_reason(reason)
        return VpnResponse(False, reason=shown, retry=retry)
    lease4 = _lease(fields, "", IPv4Address, IPv4Network)
    lease6 = _lease(fields, "6", IPv6Address, IPv6Network)
    if lease4 is None and lease6 is None:
        raise ProtocolError("the VPN response assigns no address")
    return VpnResponse(
        True,
        lease4,
        lease6,
        capabilities=_capabilities(fields),
        resolvers=_resolvers(fields),
        domains=_domains(fields),
    )


def _capabilities(fields: JsonFields) -> frozenset[str]:
    return frozenset(fields.texts("caps", limit=MAX_CAPABILITIES))


def _lease(
    fields: JsonFields, suffix: str, address_type: type[A], network_type: type[N]
) -> Lease[A, N] | None:
    names = [f"{name}{suffix}" for name in ("assigned_ip", "network", "server_ip")]
    texts = [fields.optional(name, str) for name in names]
    if texts == [None, None, None]:
        return None
    if any(text is None for text in texts):
        raise ProtocolError(f"the VPN response has only some of {', '.join(names)}")
    try:
        address, server = address_type(texts[0]), address_type(texts[2])
        network = network_type(texts[1], strict=False)
    except ValueError:
        raise ProtocolError(f"the VPN response's {names[0]} or {names[1]} is no address") from None
    lease = Lease(address, network, server)
    _check_lease(lease)
    return lease


def _check_lease(lease: Lease[A, N]) -> None:
    address, network = lease.address, lease.network
    if address not in network or lease.server not in network or address == lease.server:
        raise ProtocolError(f"the VPN response assigns {address}, which does not fit {network}")
    if network.prefixlen < _WIDEST[address.version]:
        raise ProtocolError(f"the VPN response assigns the network {network}, which is too wide")
    scoped = any(getattr(ip, "scope_id", None) for ip in (address, lease.server))
    if scoped or address.is_multicast or address.is_loopback or address.is_unspecified:
        raise ProtocolError(f"the VPN response assigns {address}, which no client can have")


def _resolvers(fields: JsonFields) -> tuple[Address, ...]:
    try:
        found = tuple(map(ip_address, fields.texts("dns", limit=MAX_RESOLVERS)))
    except ValueError:
        raise ProtocolError("the VPN response names a resolver that is no address") from None
    if any(address.is_multicast or address.is_unspecified for address in found):
        raise ProtocolError("the VPN response names a resolver that cannot be one")
    if any(isinstance(address, IPv6Address) and address.scope_id for address in found):
        raise ProtocolError("the VPN response names a resolver with a scope id")
    return found


def _domains(fields: JsonFields) -> tuple[str, ...]:
    domains = fields.texts("dns_domains", limit=MAX_DOMAINS)
    if not all(_is_domain(domain) for domain in domains):
        raise ProtocolError("the VPN response names a search domain that is none")
    return domains


def _is_domain(text: str) -> bool:
    """These end up in the system's resolver configuration: letters, digits, hyphens and dots."""
    try:
        check_host(text)
    except ValueError:
        return False
    return ":" not in text
