"""What `netcheck` finds, and what it means."""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address

from tunnel_rs.values import SocketAddr

SKEW_THAT_MATTERS = 60.0
"""Seconds; certificates and records are dated, and a minute is nothing to either."""

BUFFER_THAT_SUFFICES = 1 << 20
"""Bytes; below that, bursts at some hundred Mbit/s overflow the socket."""


@dataclass(frozen=True, slots=True)
class Mapping:
    """How one server sees our socket: `address`, or why it did not say."""

    server: str
    by: str
    """`QUIC` or `STUN`."""

    server_address: SocketAddr | None = None
    address: SocketAddr | None = None
    answered: bool = False
    """Whether anything valid came back, if only a certificate we do not trust."""

    problem: str = ""


@dataclass(frozen=True, slots=True)
class Family:
    """IPv4 or IPv6."""

    name: str
    addresses: tuple[str, ...]
    """Of this machine; loopback and link-local ones left out."""

    route: bool
    """Whether the system knows a way to the internet."""

    bound: SocketAddr | None
    """The socket the servers were asked from; None when there is no such family."""

    mappings: tuple[Mapping, ...] = ()

    @property
    def seen(self) -> tuple[SocketAddr, ...]:
        """Our addresses as servers see them, each once."""
        return tuple(dict.fromkeys(m.address for m in self.mappings if m.address))

    @property
    def answered(self) -> bool | None:
        """Whether UDP went out and answers came in; None when nobody was asked."""
        return any(m.answered for m in self.mappings) if self.mappings else None

    @property
    def depends_on_destination(self) -> bool | None:
        """Whether servers at different addresses see different ports or addresses of one socket;
        None with fewer than two of them."""
        answers = {m.server_address: m.address for m in self.mappings if m.address}
        return len(set(answers.values())) > 1 if len(answers) > 1 else None

    @property
    def behind_nat(self) -> bool | None:
        """Whether we are seen under an address that is not ours; None when not seen at all."""
        if not self.seen:
            return None
        return not all(
            address.ip in self.addresses or ip_address(address.ip).is_loopback
            for address in self.seen
        )


@dataclass(frozen=True, slots=True)
class Relay:
    """One relay: its latency in seconds, and whether it let us in."""

    url: str
    latency: float | None
    let_in: bool
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Discovery:
    """A throw-away record, published and looked up again. Times are seconds."""

    publish_url: str
    resolved_by: str
    publish_time: float | None = None
    resolve_time: float | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Nat:
    """What pystun3 made of a STUN server's answers."""

    server: str
    kind: str = ""
    external: SocketAddr | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Buffers:
    """Bytes of UDP socket buffers: asked for, and granted."""

    asked: int
    receive: int
    send: int


@dataclass(frozen=True, slots=True)
class Findings:
    """Everything."""

    families: tuple[Family, ...]
    relays: tuple[Relay, ...]
    discovery: Discovery | None
    nats: tuple[Nat, ...]
    unresolved: tuple[str, ...]
    """Names of servers that could not be resolved, and why."""

    clock_skew: float | None
    """Seconds our clock is ahead of the relays'; within about a second. None: nobody told."""

    buffers: Buffers | None
    elapsed: float

    def meaning(self) -> tuple[str, ...]:
        """One sentence on each subject."""
        return (
            _udp(self.families),
            _direct(self.families),
            _relays(self.relays),
            _discovery(self.discovery),
            *_clock(self.clock_skew),
            *_buffers(self.buffers),
        )


def _udp(families: tuple[Family, ...]) -> str:
    working = [family.name for family in families if family.answered]
    silent = [family.name for family in families if family.answered is False]
    if working:
        return f"UDP goes out and answers come in ({' and '.join(working)})."
    if silent:
        return (
            f"No UDP answer came in ({' and '.join(silent)}): a firewall seems to block UDP, so"
            " that tunnels need a relay."
        )
    if not any(family.route for family in families):
        return "This machine has no way to the internet; only the local network can be reached."
    return "Nobody was asked over UDP; name a relay with TLS or a STUN server to find out."


def _direct(families: tuple[Family, ...]) -> str:
    if any(family.behind_nat is False for family in families):
        return (
            "Servers see an address of this machine itself: without a firewall, peers can connect"
            " directly."
        )
    if any(family.depends_on_destination for family in families):
        return (
            "The NAT maps one socket differently for each destination (symmetric): direct"
            " connections work only towards peers that are easier to reach; others need a relay."
        )
    if any(family.depends_on_destination is False for family in families):
        return (
            "The NAT keeps one mapping for all destinations: direct connections will mostly work."
        )
    if any(family.seen for family in families):
        return (
            "There is a NAT; a second server (another relay or --stun-server) would tell whether"
            " direct connections through it work."
        )
    return "Whether peers can connect directly is not known, as no server saw our UDP."


def _relays(relays: tuple[Relay, ...]) -> str:
    if not relays:
        return "No relay was looked at, so a peer that cannot be reached directly stays unreached."
    usable = [relay for relay in relays if relay.let_in]
    if not usable:
        return "No relay can be used: " + "; ".join(_why_not(relays)) + "."
    nearest = min(usable, key=lambda relay: relay.latency if relay.latency else 9e9)
    text = f"{len(usable)} of {len(relays)} relay(s) can be used; the nearest is {nearest.url}"
    return (
        f"{text}."
        if len(usable) == len(relays)
        else f"{text}; " + "; ".join(_why_not(relays)) + "."
    )


def _why_not(relays: tuple[Relay, ...]) -> Iterator[str]:
    return (f"{relay.url} {relay.problem}" for relay in relays if not relay.let_in)


def _discovery(discovery: Discovery | None) -> str:
    if discovery is None:
        return "Discovery over the internet was not looked at; give --dns-server to do so."
    if discovery.problem:
        return f"Peers cannot be found by their EndpointId alone: {discovery.problem}."
    return "Discovery works: what is published here is found by others."


def _clock(skew: float | None) -> Iterator[str]:
    if skew is None:
        return
    if abs(skew) < SKEW_THAT_MATTERS:
        yield "The clock is right."
        return
    side = "ahead" if skew > 0 else "behind"
    yield (
        f"The clock is {abs(skew):.0f} s {side}: certificates may be refused and published records"
        " ignored; set it right."
    )


def _buffers(buffers: Buffers | None) -> Iterator[str]:
    if buffers is None:
        return
    if min(buffers.receive, buffers.send) >= BUFFER_THAT_SUFFICES:
        yield "UDP socket buffers are large enough."
        return
    yield (
        f"UDP socket buffers are small ({buffers.receive:,} and {buffers.send:,} bytes), which"
        " costs speed; on Linux raise net.core.rmem_max and net.core.wmem_max to"
        f" {buffers.asked:,}."
    )
