"""NAT64: IPv6 clients reach IPv4 hosts as 64:ff9b::a.b.c.d (RFC 6146, RFC 7915, RFC 6052).

One IPv4 address stands for all clients; flows are told apart by port, or by the identifier of an
ICMP echo. A port of ours may serve many destinations at a time. The tables are bounded: over all,
and per client.
"""

from collections import Counter
from dataclasses import dataclass
from struct import Struct

from tunnel_rs.proto.checksum import complement, partial_sum
from tunnel_rs.proto.vpn_icmp import IcmpError, to_ipv4, to_ipv6
from tunnel_rs.proto.vpn_packets import ICMP, ICMPV6, IPV4_HEADER, IPV6_HEADER, TCP, UDP

PREFIX = bytes.fromhex("0064ff9b0000000000000000")
"""The well-known prefix 64:ff9b::/96."""

MAX_FLOWS = 65_536
MAX_FLOWS_OF_CLIENT = 8_192

_SWEEP_INTERVAL = 10.0
_MAX_PORT_LOOKS = 512
_CHECKSUM = {TCP: 16, UDP: 6}
_LEAST = {TCP: 20, UDP: 8, ICMP: 8, ICMPV6: 8}
_ECHO_6, _ECHO_REPLY_6, _ECHO_4, _ECHO_REPLY_4 = 128, 129, 8, 0
_MAX_UNFRAGMENTABLE = 1260
"""Longer packets get the flag Don't Fragment (RFC 7915 section 5.1)."""

_MAX_QUOTED_4 = 576 - IPV4_HEADER - 8
_MAX_QUOTED_6 = 1280 - IPV6_HEADER - 8

_V4 = Struct("!BBHHHBBH")
_V6 = Struct("!IHBB")

Key = tuple[int, bytes, int, bytes, int]
"""Protocol, client's address, client's port, IPv4 destination, its port."""

Reverse = tuple[int, int, bytes, int]
"""Protocol, port of ours, IPv4 peer, its port."""


@dataclass(frozen=True, slots=True)
class Nat64Settings:
    """`source`: our IPv4 address, 4 bytes. Ports inclusive; idle times in seconds."""

    source: bytes
    first_port: int = 32_768
    last_port: int = 65_535
    tcp_timeout: float = 300.0
    udp_timeout: float = 30.0
    icmp_timeout: float = 30.0


class Untranslatable(Exception):
    """The packet cannot be passed on; the text says why."""


@dataclass(slots=True)
class _Flow:
    key: Key
    port: int
    last: float


def is_ours(destination: bytes) -> bool:
    """Whether an IPv6 destination (16 bytes) stands for an IPv4 host."""
    return destination[:12] == PREFIX


class Nat64:
    """The translator of one server."""

    def __init__(self, settings: Nat64Settings) -> None:
        self.source = settings.source
        self._first = settings.first_port
        self._count = settings.last_port - settings.first_port + 1
        self._timeouts = {
            TCP: settings.tcp_timeout,
            UDP: settings.udp_timeout,
            ICMPV6: settings.icmp_timeout,
        }
        self._flows: dict[Key, _Flow] = {}
        self._reverse: dict[Reverse, _Flow] = {}
        self._per_client: Counter[bytes] = Counter()
        self._cursor = 0
        self._swept = float("-inf")
        self._identification = 0

    def __len__(self) -> int:
        return len(self._flows)

    def forget(self, client: bytes) -> None:
        """This client has gone: what still comes for it is not for who gets its address next."""
        if client in self._per_client:
            for flow in [flow for flow in self._flows.values() if flow.key[1] == client]:
                self._forget(flow)

    # IPv6 -> IPv4

    def to_ipv4(self, packet: bytes, now: float) -> bytes:
        """Translate a client's packet to 64:ff9b::/96. Raises Untranslatable."""
        if len(packet) < IPV6_HEADER or not is_ours(packet[24:40]):
            raise Untranslatable("not for an IPv4 host")
        hops = packet[7] - 1
        if hops <= 0:
            raise Untranslatable("hop limit exceeded")
        protocol = packet[6]
        body = packet[IPV6_HEADER : IPV6_HEADER + (packet[4] << 8 | packet[5])]
        if protocol not in (TCP, UDP, ICMPV6) or len(body) < _LEAST[protocol]:
            raise Untranslatable("neither TCP, UDP nor ICMPv6, or cut off")
        client, host = packet[8:24], packet[36:40]
        if protocol == ICMPV6:
            protocol, translated = ICMP, self._icmp_to_ipv4(client, host, body, now)
        else:
            translated = self._ports_to_ipv4(protocol, client, host, body, now)
        return self._ipv4(host, protocol, hops, packet[0] << 4 | packet[1] >> 4, translated)

    def _ports_to_ipv4(
        self, protocol: int, client: bytes, host: bytes, body: bytes, now: float
    ) -> bytes:
        old, far = body[0] << 8 | body[1], body[2] << 8 | body[3]
        new = self._port_for((protocol, client, old, host, far), now)
        place = _CHECKSUM[protocol]
        change = self._to_ipv4_change(client, host) + new - old
        checksum = _adjusted(body[place] << 8 | body[place + 1], change, protocol)
        return b"".join(
            (new.to_bytes(2, "big"), body[2:place], checksum.to_bytes(2, "big"), body[place + 2 :])
        )

    def _to_ipv4_change(self, client: bytes, host: bytes) -> int:
        """What the checksum sums differ by: the pseudo-header's addresses."""
        return partial_sum(self.source) - partial_sum(client) - partial_sum(PREFIX)

    def _icmp_to_ipv4(self, client: bytes, host: bytes, body: bytes, now: float) -> bytes:
        kind = body[0]
        if kind in (_ECHO_6, _ECHO_REPLY_6):
            old = body[4] << 8 | body[5]
            new = self._port_for((ICMPV6, client, old, host, 0), now)
            echo = _ECHO_4 if kind == _ECHO_6 else _ECHO_REPLY_4
            return _icmp_message(echo, 0, new.to_bytes(2, "big") + body[6:], 0)
        error = to_ipv4(kind, body[1], int.from_bytes(body[4:8], "big"))
        if error is None:
            raise Untranslatable("an ICMPv6 message without counterpart")
        return _icmp_error(error, self._quoted_to_ipv4(client, body[8:])[:_MAX_QUOTED_4], 0)

    def _quoted_to_ipv4(self, client: bytes, quoted: bytes) -> bytes:
        """The packet that a client complains about: it came from an IPv4 host, to the client."""
        if len(quoted) < IPV6_HEADER + 8 or quoted[24:40] != client or not is_ours(quoted[8:24]):
            raise Untranslatable("an ICMPv6 error about somebody else's packet")
        protocol, host = quoted[6], quoted[20:24]
        body = quoted[IPV6_HEADER:]
        if protocol == ICMPV6:
            if body[0] not in (_ECHO_6, _ECHO_REPLY_6):
                raise Untranslatable("an ICMPv6 error about an unknown message")
            flow = self._flows.get((ICMPV6, client, body[4] << 8 | body[5], host, 0))
            place, quoted_protocol = 4, ICMP
        else:
            far, near = body[0] << 8 | body[1], body[2] << 8 | body[3]
            flow = self._flows.get((protocol, client, near, host, far))
            place, quoted_protocol = 2, protocol
        if flow is None:
            raise Untranslatable("an ICMPv6 error about no flow of ours")
        body = body[:place] + flow.port.to_bytes(2, "big") + body[place + 2 :]
        if protocol == ICMPV6:
            kind = _ECHO_4 if body[0] == _ECHO_6 else _ECHO_REPLY_4
            body = bytes((kind, 0)) + body[2:]
        length = IPV4_HEADER + (quoted[4] << 8 | quoted[5])
        return _ipv4_header(host, self.source, quoted_protocol, quoted[7], 0, length, 0) + body

    def _ipv4(self, host: bytes, protocol: int, hops: int, traffic: int, body: bytes) -> bytes:
        self._identification = (self._identification + 1) & 0xFFFF
        header = _ipv4_header(
            self.source,
            host,
            protocol,
            hops,
            traffic & 0xFF,
            IPV4_HEADER + len(body),
            self._identification,
        )
        return header + body

    # IPv4 -> IPv6

    def to_ipv6(self, packet: bytes, now: float) -> bytes:
        """Translate a packet to our IPv4 address for the client whose flow it belongs to. Raises
        Untranslatable, also for packets that belong to no flow."""
        header = (packet[0] & 15) * 4 if len(packet) >= IPV4_HEADER else 0
        length = packet[2] << 8 | packet[3] if header else 0
        if not IPV4_HEADER <= header <= length <= len(packet) or packet[16:20] != self.source:
            raise Untranslatable("not for us")
        if packet[6] & 0x3F or packet[7]:
            raise Untranslatable("a fragment")
        hops, protocol, host, body = packet[8] - 1, packet[9], packet[12:16], packet[header:length]
        if hops <= 0:
            raise Untranslatable("time to live exceeded")
        if protocol not in (TCP, UDP, ICMP) or len(body) < _LEAST[protocol]:
            raise Untranslatable("neither TCP, UDP nor ICMP, or cut off")
        if protocol == ICMP:
            client, body = self._icmp_to_ipv6(host, body, now)
            protocol = ICMPV6
        else:
            client, body = self._ports_to_ipv6(protocol, host, body, now)
        return _ipv6_header(PREFIX + host, client, protocol, hops, packet[1], len(body)) + body

    def _ports_to_ipv6(
        self, protocol: int, host: bytes, body: bytes, now: float
    ) -> tuple[bytes, bytes]:
        far, port = body[0] << 8 | body[1], body[2] << 8 | body[3]
        flow = self._flow_of((protocol, port, host, far), now)
        _, client, near, _, _ = flow.key
        place = _CHECKSUM[protocol]
        old = body[place] << 8 | body[place + 1]
        change = near - port - self._to_ipv4_change(client, host)
        near_bytes = near.to_bytes(2, "big")
        if protocol == UDP and not old:
            # No checksum over IPv4; over IPv6 there has to be one.
            rest = body[:2] + near_bytes + body[4:6] + b"\0\0" + body[8:]
            total = partial_sum(PREFIX + host + client) + UDP + len(body) + partial_sum(rest)
            checksum = complement(total)
        else:
            checksum = _adjusted(old, change, protocol)
        return client, b"".join(
            (
                body[:2],
                near_bytes,
                body[4:place],
                checksum.to_bytes(2, "big"),
                body[place + 2 :],
            )
        )

    def _icmp_to_ipv6(self, host: bytes, body: bytes, now: float) -> tuple[bytes, bytes]:
        kind = body[0]
        if kind in (_ECHO_4, _ECHO_REPLY_4):
            flow = self._flow_of((ICMPV6, body[4] << 8 | body[5], host, 0), now)
            client, identifier = flow.key[1], flow.key[2]
            echo = _ECHO_6 if kind == _ECHO_4 else _ECHO_REPLY_6
            rest = identifier.to_bytes(2, "big") + body[6:]
            pseudo = partial_sum(PREFIX + host + client) + ICMPV6 + len(body)
            return client, _icmp_message(echo, 0, rest, pseudo)
        error = to_ipv6(kind, body[1], int.from_bytes(body[4:8], "big"))
        if error is None:
            raise Untranslatable("an ICMP message without counterpart")
        client, quoted = self._quoted_to_ipv6(body[8:])
        quoted = quoted[:_MAX_QUOTED_6]
        pseudo = partial_sum(PREFIX + host + client) + ICMPV6 + 8 + len(quoted)
        return client, _icmp_error(error, quoted, pseudo)

    def _quoted_to_ipv6(self, quoted: bytes) -> tuple[bytes, bytes]:
        """The packet that somebody complains about: it was ours. The client, and its packet."""
        header = (quoted[0] & 15) * 4 if len(quoted) >= IPV4_HEADER else 0
        if header < IPV4_HEADER or len(quoted) < header + 8 or quoted[12:16] != self.source:
            raise Untranslatable("an ICMP error about somebody else's packet")
        protocol, host, body = quoted[9], quoted[16:20], quoted[header:]
        if protocol == ICMP:
            port, far, place = body[4] << 8 | body[5], 0, 4
            known = body[0] in (_ECHO_4, _ECHO_REPLY_4)
            reverse: Reverse = (ICMPV6, port, host, far)
        else:
            port, far, place = body[0] << 8 | body[1], body[2] << 8 | body[3], 0
            known = True
            reverse = (protocol, port, host, far)
        flow = self._reverse.get(reverse)
        if flow is None or not known:
            raise Untranslatable("an ICMP error about no flow of ours")
        client, near = flow.key[1], flow.key[2]
        body = body[:place] + near.to_bytes(2, "big") + body[place + 2 :]
        if protocol == ICMP:
            kind = _ECHO_6 if body[0] == _ECHO_4 else _ECHO_REPLY_6
            body = bytes((kind, 0)) + body[2:]
            protocol = ICMPV6
        length = max((quoted[2] << 8 | quoted[3]) - header, 0)
        return client, _ipv6_header(client, PREFIX + host, protocol, quoted[8], 0, length) + body

    # Flows

    def _flow_of(self, reverse: Reverse, now: float) -> _Flow:
        flow = self._reverse.get(reverse)
        if flow is None or self._is_over(flow, now):
            raise Untranslatable("no flow of ours")
        flow.last = now
        return flow

    def _is_over(self, flow: _Flow, now: float) -> bool:
        return now - flow.last > self._timeouts[flow.key[0]]

    def _port_for(self, key: Key, now: float) -> int:
        flow = self._flows.get(key)
        if flow is not None:
            flow.last = now
            return flow.port
        if now - self._swept >= _SWEEP_INTERVAL:
            self._sweep(now)
        if len(self._flows) >= MAX_FLOWS or self._per_client[key[1]] >= MAX_FLOWS_OF_CLIENT:
            raise Untranslatable("too many flows")
        port = self._free_port(key, now)
        flow = _Flow(key, port, now)
        self._flows[key] = flow
        self._reverse[key[0], port, key[3], key[4]] = flow
        self._per_client[key[1]] += 1
        return port

    def _free_port(self, key: Key, now: float) -> int:
        protocol, _, _, host, far = key
        for _ in range(min(self._count, _MAX_PORT_LOOKS)):
            port = self._first + self._cursor
            self._cursor = (self._cursor + 1) % self._count
            taken = self._reverse.get((protocol, port, host, far))
            if taken is None:
                return port
            if self._is_over(taken, now):
                self._forget(taken)
                return port
        raise Untranslatable("no port is free")

    def _sweep(self, now: float) -> None:
        self._swept = now
        for flow in [flow for flow in self._flows.values() if self._is_over(flow, now)]:
            self._forget(flow)

    def _forget(self, flow: _Flow) -> None:
        protocol, client, _, host, far = flow.key
        del self._flows[flow.key]
        del self._reverse[protocol, flow.port, host, far]
        self._per_client[client] -= 1
        if not self._per_client[client]:
            del self._per_client[client]


def _adjusted(checksum: int, change: int, protocol: int) -> int:
    """A checksum after its sum changed by so much (RFC 1624); UDP without one stays without."""
    if not checksum and protocol == UDP:
        return 0
    return complement(65535 - checksum + change)


def _icmp_message(kind: int, code: int, rest: bytes, pseudo: int) -> bytes:
    """`rest` begins behind the checksum; `pseudo` is 0 for ICMPv4."""
    head = bytes((kind, code))
    checksum = complement(partial_sum(head) + partial_sum(rest) + pseudo)
    return head + checksum.to_bytes(2, "big") + rest


def _icmp_error(error: IcmpError, quoted: bytes, pseudo: int) -> bytes:
    return _icmp_message(error.type, error.code, error.rest.to_bytes(4, "big") + quoted, pseudo)


def _ipv4_header(
    source: bytes,
    destination: bytes,
    protocol: int,
    hops: int,
    traffic: int,
    length: int,
    identification: int,
) -> bytes:
    flags = 0x4000 if length > _MAX_UNFRAGMENTABLE else 0
    header = _V4.pack(0x45, traffic, length & 0xFFFF, identification, flags, hops, protocol, 0)
    header += source + destination
    return header[:10] + complement(partial_sum(header)).to_bytes(2, "big") + header[12:]


def _ipv6_header(
    source: bytes, destination: bytes, protocol: int, hops: int, traffic: int, length: int
) -> bytes:
    return _V6.pack(6 << 28 | traffic << 20, length, protocol, hops) + source + destination
