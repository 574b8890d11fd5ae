"""ICE candidates as text (RFC 8839 section 5.1, spec `ice.md` section 1.4).

The original aborts on one candidate it cannot read, so what we write is its narrowest form. What we
read is taken one by one: a candidate that is of no use here (TCP, mDNS names, zones) is skipped.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address

from tunnel_rs.values import SocketAddr

MAX_CANDIDATE_TEXT = 512
_MAX_FOUNDATION = 32
_MAX_PRIORITY = 2**31 - 1
_MAX_WORDS = 40
_ICE_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")


class CandidateType(StrEnum):
    """How a candidate was found; the values are those on the wire."""

    HOST = "host"
    SERVER_REFLEXIVE = "srflx"
    PEER_REFLEXIVE = "prflx"
    RELAYED = "relay"


@dataclass(frozen=True, slots=True)
class IceCandidate:
    """An address a peer may be reached at. Component 1 over UDP always."""

    foundation: str
    priority: int
    address: SocketAddr
    type: CandidateType
    related: SocketAddr | None = None

    def __str__(self) -> str:
        related = f" raddr {self.related.ip} rport {self.related.port}" if self.related else ""
        return (
            f"candidate:{self.foundation} 1 udp {self.priority} "
            f"{self.address.ip} {self.address.port} typ {self.type}{related}"
        )


def is_ice_text(text: str, shortest: int) -> bool:
    """Whether `text` has `shortest` to 256 of the characters RFC 8839 allows."""
    return shortest <= len(text) <= 256 and _ICE_CHARACTERS.issuperset(text)


def parse_candidate(text: str, ufrag: str | None = None) -> IceCandidate | None:
    """Read one candidate; None for what is malformed or of no use here. A `ufrag` attribute that
    is not the given one belongs to another generation of the session: None too."""
    words = text.removeprefix("a=").removeprefix("candidate:").split()
    if len(text) > MAX_CANDIDATE_TEXT or not 8 <= len(words) <= _MAX_WORDS:
        return None
    foundation, component, transport, priority, ip, port, label, kind = words[:8]
    attributes = dict(zip(words[8::2], words[9::2], strict=False))
    usable = (
        is_ice_text(foundation, 1)
        and len(foundation) <= _MAX_FOUNDATION
        and component == "1"
        and transport.lower() == "udp"
        and label == "typ"
        and kind in set(CandidateType)
        and attributes.get("ufrag") in (None, ufrag)
    )
    if not usable:
        return None
    number = _number(priority, _MAX_PRIORITY)
    address = _address(ip, port, lowest_port=1)
    if number is None or address is None or not _is_one_host(address.ip):
        return None
    related = _address(attributes.get("raddr", ""), attributes.get("rport", ""), lowest_port=0)
    return IceCandidate(foundation, number, address, CandidateType(kind), related)


def parse_candidates(texts: Iterable[str], ufrag: str, limit: int) -> tuple[IceCandidate, ...]:
    """The usable ones of `texts`, one for each address, at most `limit` by priority."""
    found: dict[SocketAddr, IceCandidate] = {}
    for text in texts:
        candidate = parse_candidate(text, ufrag)
        if candidate is not None:
            found.setdefault(candidate.address, candidate)
    ranked = sorted(found.values(), key=lambda candidate: -candidate.priority)
    return tuple(ranked[:limit])


def guesses(candidates: Iterable[IceCandidate]) -> tuple[SocketAddr, ...]:
    """Addresses worth a try though nobody announced them: behind NATs that keep ports, the host
    socket of the original appears at its reflexive address with the host's port (spec `ice.md`
    section 3, override 4)."""
    candidates = tuple(candidates)
    known = {candidate.address for candidate in candidates}
    reflexive = [c for c in candidates if c.type is CandidateType.SERVER_REFLEXIVE]
    hosts = [c for c in candidates if c.type is CandidateType.HOST and not c.address.is_ipv6]
    found = (
        SocketAddr(outer.address.ip, inner.address.port)
        for outer in reflexive
        for inner in hosts
        if not outer.address.is_ipv6 and inner.address.ip != outer.address.ip
    )
    return tuple(address for address in dict.fromkeys(found) if address not in known)


def _is_one_host(ip: str) -> bool:
    """No datagram goes to a group, or to everybody, because a peer named it."""
    address = ip_address(ip)
    return not (address.is_multicast or address.is_unspecified or ip == "255.255.255.255")


def _number(text: str, most: int) -> int | None:
    if not (text.isascii() and text.isdigit()) or len(text) > 10:
        return None
    number = int(text)
    return number if number <= most else None


def _address(ip: str, port: str, *, lowest_port: int) -> SocketAddr | None:
    number = _number(port, 65535)
    if number is None or number < lowest_port:
        return None
    try:
        return SocketAddr.parse(
            f"[{ip}]:{number}" if ":" in ip else f"{ip}:{number}", allow_port_zero=True
        )
    except ValueError:
        return None
