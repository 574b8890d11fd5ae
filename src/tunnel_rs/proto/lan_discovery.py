"""When to ask and when to answer on the local network: the rules of LAN discovery, sans I/O.

Spec `discovery.md` section 6, compatible with Rust's swarm-discovery, with two differences that
other implementations do not notice:

* Somebody who only announces is silent until asked. (There, every member asks every 0.7 s for as
  long as it runs, and each question draws up to two answers.)
* A look-up asks several times at once, and points at the endpoint it wants (see `mdns`), which
  then answers at once. (There, two members picked by chance answer each question.)

Use: call `receive`, `start_lookup`, `cancel_lookup`, `announce`, `withdraw` or `handle_timer`, then
send `outgoing()`, handle `events()` and arrange a `handle_timer` call for `next_timer()`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from ipaddress import ip_address

from tunnel_rs.proto import mdns
from tunnel_rs.values import EndpointId, SocketAddr

TAU = 0.7
"""Seconds between questions, apart from chance."""

CUTOFF = 2
"""Answers that one question is to draw: ceil(TAU x 2.5 answers/s)."""

BURST = (0.0, 0.1, 0.3, 0.6, 1.0, 1.5)
"""Seconds after the start of a look-up at which to ask while nothing is found yet."""

ANSWER_DELAY = 0.1
"""Seconds; scales the random wait before an answer, which grows with the number of members."""

MAX_ANSWER_DELAY = 2.0
"""Seconds. However many members somebody feigns, we do not wait longer than that."""

PROMPT_DELAY = 0.02
"""Seconds an answer waits at most when we are meant in particular."""

MIN_ANSWER_GAP = 0.1
"""Seconds between two answers of ours, however often we are asked."""

MAX_PEERS = 1024
"""Endpoints remembered; past that the one heard of longest ago is forgotten."""

MAX_ADDRESSES = 16
"""Addresses kept per endpoint, announced by us, and believed per look-up."""


class Where(Enum):
    """Which interfaces a packet is for."""

    EVERYWHERE = auto()
    LOOPBACK = auto()
    NETWORK = auto()
    """All but loopback."""


@dataclass(frozen=True, slots=True)
class Packet:
    """Something to send to the multicast groups."""

    data: bytes
    where: Where


@dataclass(frozen=True, slots=True)
class Found:
    """Addresses, not told before, under which `endpoint_id` claims to be reachable. Only a
    handshake with that key shows whether it is true."""

    lookup: int
    endpoint_id: EndpointId
    addresses: tuple[SocketAddr, ...]


@dataclass(frozen=True, slots=True)
class LookupEnded:
    """The time given to a look-up is over. Nothing more comes from it."""

    lookup: int
    endpoint_id: EndpointId


Event = Found | LookupEnded


@dataclass(slots=True)
class _Lookup:
    endpoint_id: EndpointId
    deadline: float
    burst: list[float]
    """Times at which to ask, in order."""
    told: set[SocketAddr] = field(default_factory=set)


@dataclass(slots=True)
class _Own:
    addresses: Callable[[], Sequence[SocketAddr]]
    relay_url: str | None
    user_data: str | None


# When each address of a peer was last announced, oldest first; never empty.
_Peer = dict[SocketAddr, float]


def is_dialable(address: SocketAddr) -> bool:
    """Whether a unicast datagram can go there. Link-local IPv6 is out: it needs a scope id, which
    an announcement cannot carry. A directed broadcast address cannot be told apart here; the
    kernel refuses it."""
    ip = ip_address(address.ip)
    if ip.version == 4:  # not 0.0.0.0/8 (RFC 1122), nor 240.0.0.0/4 with the broadcast address
        return address.port != 0 and 0 < ip.packed[0] < 224
    return address.port != 0 and not (ip.is_multicast or ip.is_unspecified or ip.is_link_local)


def _is_loopback(ip: str) -> bool:
    return ip_address(ip).is_loopback


class SwarmMember:
    """One member of the swarm on the local network.

    `uniform`: returns a random float in [0, 1). `now` is in seconds on any steady clock, never
    going back between calls.
    """

    def __init__(self, uniform: Callable[[], float]) -> None:
        self._uniform = uniform
        self._own: dict[EndpointId, _Own] = {}
        self._peers: dict[EndpointId, _Peer] = {}  # heard of longest ago first
        self._lookups: dict[int, _Lookup] = {}
        self._last_lookup = 0
        self._next_query = math.inf
        self._answer_at = math.inf
        self._answer_surely = False
        self._last_answer = -math.inf
        self._extra_delay = 0.0
        self._answered_last_time = False
        self._heard: set[EndpointId] = set()
        self._outgoing: list[Packet] = []
        self._events: list[Event] = []

    # What the owner wants

    def announce(
        self,
        endpoint_id: EndpointId,
        addresses: Callable[[], Sequence[SocketAddr]],
        now: float,
        *,
        relay_url: str | None = None,
        user_data: str | None = None,
    ) -> None:
        """Answer for `endpoint_id` from now on, and say once that it is here.

        `addresses` is called for each answer. Loopback addresses among them are told on the
        loopback interface only; what nobody can dial is left out. Raises ValueError when an
        attribute is too long (see `mdns.encode_response`).
        """
        mdns.encode_response(endpoint_id, (), relay_url=relay_url, user_data=user_data)
        self._own[endpoint_id] = _Own(addresses, relay_url, user_data)
        self._begin_answer(now, surely=True)

    def withdraw(self, endpoint_id: EndpointId) -> None:
        """Stop answering for `endpoint_id`."""
        self._own.pop(endpoint_id, None)
        if not self._own:
            self._answer_at, self._answer_surely = math.inf, False

    def start_lookup(
        self, endpoint_id: EndpointId, now: float, timeout: float | None = None
    ) -> int:
        """Look for `endpoint_id` for `timeout` seconds, or until cancelled. Returns the handle
        that its events carry."""
        self._last_lookup += 1
        deadline = math.inf if timeout is None else now + timeout
        lookup = _Lookup(endpoint_id, deadline, [now + offset for offset in BURST])
        self._lookups[self._last_lookup] = lookup
        self.handle_timer(now)
        known = self._peers.get(endpoint_id, {})
        oldest = now - self._lifetime()
        addresses = [address for address, seen in known.items() if seen >= oldest]
        self._tell(self._last_lookup, lookup, addresses, "")
        return self._last_lookup

    def cancel_lookup(self, handle: int) -> None:
        """End a look-up without an event. Does nothing when it has ended."""
        self._lookups.pop(handle, None)
        if not self._lookups:
            self._next_query = math.inf

    def network_changed(self, now: float) -> None:
        """Interfaces have come up: be heard and ask there too."""
        if self._own:
            self._begin_answer(now, surely=True)
        for lookup in self._lookups.values():
            lookup.burst = [now + offset for offset in BURST]

    # What the network says

    def receive(self, packet: bytes, source_ip: str, now: float) -> None:
        """Take in one packet that was sent to the group. Never raises for what is in it."""
        message = mdns.decode(packet)
        if isinstance(message, mdns.Query):
            self._query_received(message, now)
        elif message is not None:
            self._expire_peers(now)
            for announcement in message:
                self._announcement_received(announcement, source_ip, now)

    def _query_received(self, query: mdns.Query, now: float) -> None:
        self._begin_answer(now, surely=any(map(query.names, self._own)))
        if self._lookups and self._serves_us(query):
            self._schedule_query(now)

    def _serves_us(self, query: mdns.Query) -> bool:
        """Whether somebody else's question brings the answers that we wait for."""
        if self._swarm_size() <= CUTOFF:
            return True
        return all(query.names(lookup.endpoint_id) for lookup in self._lookups.values())

    def _announcement_received(
        self, announcement: mdns.Announcement, source_ip: str, now: float
    ) -> None:
        endpoint_id = announcement.endpoint_id
        local = _is_loopback(source_ip)
        addresses = tuple(
            address
            for address in announcement.addresses
            if is_dialable(address) and (local or not _is_loopback(address.ip))
        )
        if not addresses:
            return
        if endpoint_id not in self._own:  # else our own, looped back
            self._count_answer(endpoint_id)
            self._remember(endpoint_id, addresses, now)
        for handle, lookup in self._lookups.items():
            if lookup.endpoint_id == endpoint_id:
                self._tell(handle, lookup, addresses, source_ip)

    def _tell(
        self, handle: int, lookup: _Lookup, addresses: Sequence[SocketAddr], source_ip: str
    ) -> None:
        """Report what is new. The address a packet came from is believed longer than others, so
        that a liar on the network cannot fill the list before the true endpoint answers."""
        new = []
        for address in sorted(addresses, key=lambda address: address.ip != source_ip):
            limit = MAX_ADDRESSES * (1 + (address.ip == source_ip))
            if address not in lookup.told and len(lookup.told) < limit:
                lookup.told.add(address)
                new.append(address)
        if new:
            lookup.burst.clear()
            self._events.append(Found(handle, lookup.endpoint_id, tuple(new)))

    # Peers

    def _remember(
        self, endpoint_id: EndpointId, addresses: Sequence[SocketAddr], now: float
    ) -> None:
        peer = self._peers.pop(endpoint_id, {})
        if len(self._peers) >= MAX_PEERS:
            del self._peers[next(iter(self._peers))]
        for address in addresses:
            peer.pop(address, None)
            peer[address] = now
        while len(peer) > MAX_ADDRESSES:
            del peer[next(iter(peer))]
        self._peers[endpoint_id] = peer

    def _lifetime(self) -> float:
        """Seconds for which an announcement holds: three times the interval between repeats."""
        return 3 * TAU * max(1.0, self._swarm_size() / CUTOFF)

    def _expire_peers(self, now: float) -> None:
        oldest = now - self._lifetime()
        while self._peers:
            endpoint_id, peer = next(iter(self._peers.items()))
            if next(reversed(peer.values())) >= oldest:
                break  # and all behind it were heard of later
            del self._peers[endpoint_id]

    def _swarm_size(self) -> int:
        return max(1, len(self._peers) + bool(self._own))

    # Asking

    def _schedule_query(self, now: float) -> None:
        # The published rules widen the random part with the swarm, as all members ask the same
        # and one of them will do. Our question is for one endpoint, and nobody else asks it.
        self._next_query = now + TAU + self._uniform() * TAU / 10

    def _send_query(self, now: float) -> None:
        wanted = list({lookup.endpoint_id: None for lookup in self._lookups.values()})
        nonce = int(self._uniform() * 2**53).to_bytes(mdns.NONCE_LENGTH, "big")
        if len(wanted) > mdns.MAX_HINTS:
            wanted = []  # nobody in particular: then all answer in turn
        self._outgoing.append(Packet(mdns.encode_query(wanted, nonce), Where.EVERYWHERE))
        self._schedule_query(now)
        self._begin_answer(now, surely=False)

    # Answering

    def _begin_answer(self, now: float, *, surely: bool) -> None:
        """Plan an answer; unless `surely`, it is dropped when CUTOFF others answer before us."""
        if not self._own:
            return
        earliest = self._last_answer + MIN_ANSWER_GAP
        if surely:
            prompt = max(now + self._uniform() * PROMPT_DELAY, earliest)
            self._answer_at = min(self._answer_at, prompt)
            self._answer_surely = True
        elif self._answer_at == math.inf:
            self._heard.clear()
            self._answer_at = max(now + self._answer_delay(), earliest)

    def _answer_delay(self) -> float:
        size = self._swarm_size()
        if self._answered_last_time:  # let others have their turn
            self._extra_delay = ANSWER_DELAY * min(size // CUTOFF, 10)
        else:
            self._extra_delay = max(0.0, self._extra_delay - ANSWER_DELAY)
        self._answered_last_time = False
        delay = self._extra_delay + self._uniform() * ANSWER_DELAY * size / CUTOFF
        return min(delay, MAX_ANSWER_DELAY)

    def _count_answer(self, endpoint_id: EndpointId) -> None:
        if self._answer_at == math.inf or self._answer_surely:
            return
        self._heard.add(endpoint_id)
        if len(self._heard) >= CUTOFF:
            self._answer_at = math.inf

    def _answer(self, now: float) -> None:
        self._answer_at = math.inf
        self._answer_surely = False
        self._answered_last_time = True
        self._last_answer = now
        for endpoint_id, own in self._own.items():
            addresses = [a for a in dict.fromkeys(own.addresses()) if is_dialable(a)]
            network = [address for address in addresses if not _is_loopback(address.ip)]
            if len(network) == len(addresses):
                self._send_response(endpoint_id, own, network, Where.EVERYWHERE)
            else:
                self._send_response(endpoint_id, own, network, Where.NETWORK)
                addresses.sort(key=lambda address: not _is_loopback(address.ip))
                self._send_response(endpoint_id, own, addresses, Where.LOOPBACK)

    def _send_response(
        self, endpoint_id: EndpointId, own: _Own, addresses: list[SocketAddr], where: Where
    ) -> None:
        told = addresses[:MAX_ADDRESSES]
        packets = mdns.encode_response(
            endpoint_id, told, relay_url=own.relay_url, user_data=own.user_data
        )
        self._outgoing += (Packet(data, where) for data in packets)

    # Time and output

    def next_timer(self) -> float | None:
        """When to call `handle_timer`; None while there is nothing to wait for."""
        times = [self._answer_at, self._next_query]
        for lookup in self._lookups.values():
            times += [lookup.deadline, *lookup.burst[:1]]
        return None if (due := min(times)) == math.inf else due

    def handle_timer(self, now: float) -> None:
        """Do what is due at `now`."""
        for handle, lookup in list(self._lookups.items()):
            if lookup.deadline <= now:
                self.cancel_lookup(handle)
                self._events.append(LookupEnded(handle, lookup.endpoint_id))
        self._expire_peers(now)
        self._ask_if_due(now)
        if self._answer_at <= now:
            self._answer(now)

    def _ask_if_due(self, now: float) -> None:
        due = self._next_query <= now
        for lookup in self._lookups.values():
            while lookup.burst and lookup.burst[0] <= now:
                del lookup.burst[0]
                due = True
        if due:
            self._send_query(now)

    def outgoing(self) -> list[Packet]:
        """Take what is to be sent now."""
        packets, self._outgoing = self._outgoing, []
        return packets

    def events(self) -> list[Event]:
        """Take what has happened."""
        events, self._events = self._events, []
        return events
