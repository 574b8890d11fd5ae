"""NAT traversal: who may be where, what to tell the peer, and when to probe. No I/O.

Spec `multipath.md` section 5. Both sides know where they may be reached: their candidates. The
server tells its own at once; the client keeps its own until a *round*, in which it names them
and both sides probe each other's candidates at the same time. That opens the NATs between them.
A probe is one PATH_CHALLENGE in a packet of its own; the PATH_RESPONSE to it tells that the way
is open.

`ClientRounds` and `ServerRounds` are driven alike: hand in what arrives, then drain `frames`
and `probes`, and call again at `get_timer`. Times are seconds of one monotonic clock. A peer
chooses where we send probes, so what it names is bounded, checked, and paid for from budgets.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from tunnel_rs.errors import ProtocolError
from tunnel_rs.proto.token_bucket import TokenBucket
from tunnel_rs.values import SocketAddr

MAX_CANDIDATES = 32
"""Addresses either side may have; what iroh announces in its transport parameter too."""

TOKEN_SIZE = 8
"""Bytes of a PATH_CHALLENGE (RFC 9000 section 19.17)."""

RETRY_GAPS = (0.033, 0.033, 0.067, 0.133, 0.266, 0.533, 1.066, 2.0)
"""Seconds between the probes to one address: 9 of them in 4.1 s."""

PROBES_PER_SECOND, PROBE_BURST = 50.0, 64.0
"""What one connection may send in probes; a round with 8 candidates never waits for it."""

ALL_PROBES_PER_SECOND, ALL_PROBES_BURST = 500.0, 500.0
"""What all connections of an endpoint may send together, some 30 kB/s."""

CHANGE_GAP = 0.25
"""Seconds between rounds when candidates have changed; they often come one after the other."""

QUIET_GAP = 5.0
"""Seconds between rounds that have nothing new to try."""

EAGER_EVERY, EAGER_TIME = 10.0, 150.0
"""Seconds between rounds while there is no direct path, during the first while after one was lost
or something changed: UDP that was blocked is let through again, and nobody tells."""

CHECK_EVERY = 60.0
"""Seconds after which a round is tried again after that, and while there is no good direct path."""

GOOD_RTT = 0.010
"""Seconds. A direct path that fast is not improved upon."""

_MAX_TOKENS = (MAX_CANDIDATES + 1) * (len(RETRY_GAPS) + 1)
"""Answers waited for; what the schedule of a full round needs, and some for `challenge_back`."""


@dataclass(frozen=True, slots=True)
class AddAddress:
    """The server may be reached at `address`. `sequence` is what RemoveAddress speaks of."""

    sequence: int
    address: SocketAddr


@dataclass(frozen=True, slots=True)
class RemoveAddress:
    """The server is no longer at the address of `sequence`."""

    sequence: int


@dataclass(frozen=True, slots=True)
class ReachOut:
    """The client asks to be probed at `address` as part of round `number`."""

    number: int
    address: SocketAddr


@dataclass(frozen=True, slots=True)
class Probe:
    """Send PATH_CHALLENGE with `token` (8 bytes) to `address`, unpadded and outside recovery."""

    address: SocketAddr
    token: bytes


def may_be_probed(address: SocketAddr, *, loopback: bool) -> bool:
    """Whether a peer may have us send there: one host, named in its canonical form.

    No multicast, broadcast, unspecified, reserved or IPv4-mapped address, no port 0; no
    link-local IPv6, which says nothing without its interface. `loopback`: whether our own
    machine counts.
    """
    ip = ip_address(address.ip)
    if not address.port or ip.is_multicast or ip.is_unspecified:
        return False
    if ip.is_loopback:
        return loopback
    if isinstance(ip, IPv6Address):
        return ip.ipv4_mapped is None and not ip.is_link_local
    # 240.0.0.0/4 holds the limited broadcast address; 0.0.0.0/8 is "this network".
    return not ip.is_reserved and ip >= IPv4Address("1.0.0.0")


def shared_budget(now: float) -> TokenBucket:
    """What all connections of one endpoint spend their probes from."""
    return TokenBucket(ALL_PROBES_PER_SECOND, ALL_PROBES_BURST, now)


@dataclass(slots=True)
class _Target:
    """An address under probe. `due` is None while it waits in the queue, and after the last."""

    due: float | None = None
    sent: int = 0


class _Probing:
    """The probes of one round."""

    def __init__(
        self, random_bytes: Callable[[int], bytes], shared: TokenBucket, now: float
    ) -> None:
        self._random_bytes = random_bytes
        self._shared = shared
        self._own = TokenBucket(PROBES_PER_SECOND, PROBE_BURST, now)
        self._targets: dict[SocketAddr, _Target] = {}
        self._queue: deque[SocketAddr] = deque()
        self._tokens: dict[bytes, SocketAddr] = {}
        self._resume = now

    def clear(self) -> None:
        """Answers to what was sent so far are void from now on."""
        self._targets.clear()
        self._queue.clear()
        self._tokens.clear()

    def add(self, address: SocketAddr) -> None:
        if address not in self._targets:
            self._targets[address] = _Target()
            self._queue.append(address)

    def remove(self, address: SocketAddr) -> None:
        if self._targets.pop(address, None) is not None:
            self._forget(address)

    def _forget(self, address: SocketAddr) -> None:
        if address in self._queue:
            self._queue.remove(address)
        self._tokens = {token: at for token, at in self._tokens.items() if at != address}

    def take(self, now: float) -> list[Probe]:
        for address, target in self._targets.items():
            if target.due is not None and target.due <= now:
                target.due = None
                self._queue.append(address)
        probes = []
        while self._queue and self._pay(now):
            address = self._queue.popleft()
            target = self._targets[address]
            if target.sent < len(RETRY_GAPS):
                target.due = now + RETRY_GAPS[target.sent]
            target.sent += 1
            probes.append(self._probe(address))
        return probes

    def once(self, address: SocketAddr, now: float) -> Probe | None:
        """A probe beside the schedule; None when there have been too many."""
        if len(self._tokens) >= _MAX_TOKENS or not self._pay(now):
            return None
        return self._probe(address)

    def _probe(self, address: SocketAddr) -> Probe:
        token = self._random_bytes(TOKEN_SIZE)
        self._tokens[token] = address
        return Probe(address, token)

    def _pay(self, now: float) -> bool:
        if self._own.try_spend(1.0, now) and self._shared.try_spend(1.0, now):
            return True
        self._resume = now + 1.0 / PROBES_PER_SECOND
        return False

    def get_timer(self) -> float | None:
        dues = [target.due for target in self._targets.values() if target.due is not None]
        if self._queue:
            dues.append(self._resume)
        return min(dues, default=None)

    def answered(self, token: bytes, source: SocketAddr) -> bool:
        """Whether this answers a probe of the round. Its address is not probed any further."""
        if self._tokens.get(token) != source:
            return False
        self._forget(source)
        if source in self._targets:
            self._targets[source] = _Target(sent=len(RETRY_GAPS) + 1)
        return True


class ClientRounds:
    """The dialling side. `reaches` tells whether a socket of ours could send to an address."""

    def __init__(
        self,
        random_bytes: Callable[[int], bytes],
        shared: TokenBucket,
        now: float,
        *,
        reaches: Callable[[SocketAddr], bool] = lambda _: True,
    ) -> None:
        self._reaches = reaches
        self._probing = _Probing(random_bytes, shared, now)
        self._own: tuple[SocketAddr, ...] = ()
        self._peers: dict[int, SocketAddr] = {}
        self._given: tuple[SocketAddr, ...] = ()
        self._direct_rtt: float | None = None
        self._number = 0
        self._started = self._eager_until = float("-inf")
        self._changed = self._lost = False
        self._frames: list[ReachOut] = []
        self.peer_moved = False
        """Since a round began the server has told of another address. Its reader takes it back."""

    # What happens

    def set_own(self, addresses: Iterable[SocketAddr], now: float) -> None:
        """Where we may be reached now, best first; those beyond the limit are not told."""
        own = tuple(dict.fromkeys(filter(self._reaches, addresses)))[:MAX_CANDIDATES]
        if own != self._own:
            self._changed |= bool(set(own) - set(self._own))
            self._own = own

    def set_given(self, addresses: Iterable[SocketAddr]) -> None:
        """Where the server is too by the word of our user; it may not know that itself (a port
        forwarded by hand). Those beyond the limit are ignored."""
        given = tuple(dict.fromkeys(filter(self._reaches, addresses)))[:MAX_CANDIDATES]
        self._changed |= bool(set(given) - set(self._given))
        self._given = given

    def address_added(self, frame: AddAddress, now: float) -> None:
        """The server may be there. Addresses that must not be probed are ignored, and so are those
        beyond the limit."""
        if not self._may_probe(frame.address) or self._peers.get(frame.sequence) == frame.address:
            return
        if len(self._peers) >= MAX_CANDIDATES and frame.sequence not in self._peers:
            return
        self.address_removed(RemoveAddress(frame.sequence), now)
        is_new = frame.address not in self._peers.values()
        self._changed |= is_new
        self._peers[frame.sequence] = frame.address
        if self._number:
            self.peer_moved |= is_new
            self._probing.add(frame.address)

    def address_removed(self, frame: RemoveAddress, now: float) -> None:
        """The server is no longer there. Unknown sequence numbers are ignored."""
        address = self._peers.pop(frame.sequence, None)
        if address is not None and address not in self._peers.values():
            self._probing.remove(address)

    def direct_path(self, rtt: float | None, now: float) -> None:
        """Round trip in seconds of the best direct path there is; None: there is none."""
        self._lost |= self._direct_rtt is not None and rtt is None
        self._direct_rtt = rtt

    def network_changed(self, now: float) -> None:
        """Begin anew at once: what did not work may work now."""
        self._changed = True
        self._started = float("-inf")

    def answered(self, token: bytes, source: SocketAddr) -> bool:
        """A PATH_RESPONSE has come that no path expects. True: it answers a probe, so open a path
        to `source`, unless there is one."""
        return self._probing.answered(token, source)

    def challenge_back(self, source: SocketAddr, now: float) -> Probe | None:
        """A PATH_CHALLENGE has come from `source`, where there is no valid path: the challenge to
        add to the response. None: answer without."""
        return self._probing.once(source, now) if self._may_probe(source) else None

    # What to do

    def get_timer(self) -> float | None:
        """When to call `frames` and `probes` again. They may be called at any time."""
        timers = (self._round_at(), self._probing.get_timer())
        return min((at for at in timers if at is not None), default=None)

    def frames(self, now: float) -> list[ReachOut]:
        """Send each of these reliably, on the path that data takes. Begins a round when one is
        due."""
        start = self._round_at()
        if start is not None and start <= now:
            self._begin(now)
        frames, self._frames = self._frames, []
        return frames

    def probes(self, now: float) -> list[Probe]:
        """Probes to send now."""
        return self._probing.take(now)

    def _begin(self, now: float) -> None:
        self._number += 1
        if self._changed or self._lost:
            self._eager_until = now + EAGER_TIME
        self._started, self._changed, self._lost = now, False, False
        self._probing.clear()
        for address in (*self._given, *self._peers.values()):
            self._probing.add(address)
        # Of a round that has not left yet nothing needs to be said any more.
        self._frames = [ReachOut(self._number, address) for address in self._own]

    def _round_at(self) -> float | None:
        if not (self._own or self._peers or self._given):
            return None
        if self._changed:
            return self._started + CHANGE_GAP
        if self._lost:
            return self._started + QUIET_GAP
        if self._direct_rtt is None:
            again = self._started + EAGER_EVERY
            return again if again <= self._eager_until else self._started + CHECK_EVERY
        return None if self._direct_rtt <= GOOD_RTT else self._started + CHECK_EVERY

    def _may_probe(self, address: SocketAddr) -> bool:
        return may_be_probed(address, loopback=_on_loopback(self._own)) and self._reaches(address)


class ServerRounds:
    """The accepting side. `limit`: how many of our addresses the client takes (its transport
    parameter); `reaches` tells whether a socket of ours could send to an address."""

    def __init__(
        self,
        random_bytes: Callable[[int], bytes],
        shared: TokenBucket,
        now: float,
        *,
        limit: int = MAX_CANDIDATES,
        reaches: Callable[[SocketAddr], bool] = lambda _: True,
    ) -> None:
        self._reaches = reaches
        self._limit = min(limit, MAX_CANDIDATES)
        self._probing = _Probing(random_bytes, shared, now)
        self._told: dict[SocketAddr, int] = {}
        self._next_sequence = 0
        self._number = 0
        self._named: set[SocketAddr] = set()
        self._named_before: set[SocketAddr] = set()
        self._frames: list[AddAddress | RemoveAddress] = []
        self.peer_moved = False
        """The client has named an address that it has not named in the round before. Its reader
        takes it back."""

    # What happens

    def set_own(self, addresses: Iterable[SocketAddr], now: float) -> None:
        """Where we may be reached now, best first; those beyond the limit are not told."""
        own = dict.fromkeys(list(dict.fromkeys(addresses))[: self._limit])
        for address in [told for told in self._told if told not in own]:
            self._frames.append(RemoveAddress(self._told.pop(address)))
        for address in own:
            if address not in self._told:
                self._told[address] = self._next_sequence
                self._frames.append(AddAddress(self._next_sequence, address))
                self._next_sequence += 1

    def reach_out(self, frame: ReachOut, now: float) -> None:
        """The client asks for a probe. A higher number ends the round before; a lower one is
        ignored. Raises ProtocolError for more addresses in a round than there may be."""
        if frame.number < self._number:
            return
        if frame.number > self._number:
            self._number = frame.number
            self._named_before, self._named = self._named, set()
            self._probing.clear()
        self._named.add(frame.address)
        self.peer_moved |= bool(self._named_before) and frame.address not in self._named_before
        if len(self._named) > MAX_CANDIDATES:
            raise ProtocolError(f"more than {MAX_CANDIDATES} addresses in a round of probes")
        if self._may_probe(frame.address):
            self._probing.add(frame.address)

    def answered(self, token: bytes, source: SocketAddr) -> bool:
        """A PATH_RESPONSE has come that no path expects. True: it answers a probe; the client
        opens a path if it wants one."""
        return self._probing.answered(token, source)

    # What to do

    def get_timer(self) -> float | None:
        """When to call `probes` again. It may be called at any time."""
        return self._probing.get_timer()

    def frames(self, now: float) -> list[AddAddress | RemoveAddress]:
        """Send each of these reliably, in this order, on the path that data takes."""
        frames, self._frames = self._frames, []
        return frames

    def probes(self, now: float) -> list[Probe]:
        """Probes to send now."""
        return self._probing.take(now)

    def _may_probe(self, address: SocketAddr) -> bool:
        return may_be_probed(address, loopback=_on_loopback(self._told)) and self._reaches(address)


def _on_loopback(own: Iterable[SocketAddr]) -> bool:
    """Whether loopback is among our candidates: then a peer may be on this machine."""
    return any(ip_address(address.ip).is_loopback for address in own)
