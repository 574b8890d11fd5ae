"""Where packets go on a VPN server: from the TUN device to clients, from clients to the device, to
each other, or through NAT64."""

import asyncio
from collections import Counter
from collections.abc import Callable

from tunnel_rs.errors import ProtocolError
from tunnel_rs.net.tun import TunDevice
from tunnel_rs.proto.vpn_frames import Offloaded
from tunnel_rs.proto.vpn_nat64 import Nat64, Untranslatable, is_ours
from tunnel_rs.proto.vpn_offload import NO_OFFLOAD, pieces
from tunnel_rs.proto.vpn_packets import endpoints, is_multicast
from tunnel_rs.vpn.session import DestinationPolicy, Session, why_not
from tunnel_rs.vpn.settings import ServerSettings, Spoofing

MAX_WAIT = 1.0
"""Seconds all clients wait for one that does not keep up."""


class Switch:
    """Passes packets on, from inside the callbacks that bring them. Keeps nothing."""

    def __init__(self, settings: ServerSettings, tun: TunDevice, own: tuple[bytes, ...]) -> None:
        """`own`: the server's addresses."""
        self.dropped: Counter[str] = Counter()
        """Packets from the device that could not be passed on."""
        self.own = own
        self._settings = settings
        self._strict = settings.spoofing is Spoofing.STRICT
        self._tun = tun
        self._policy = DestinationPolicy(settings.allowed_destinations)
        self._nat64 = None if settings.nat64 is None else Nat64(settings.nat64)
        self._sessions: dict[bytes, Session] = {}
        self._capable: set[Session] = set()
        self._incapable: set[Session] = set()
        self._waiting_for: set[Session] = set()
        self._loop = asyncio.get_running_loop()
        self._patience: asyncio.TimerHandle | None = None

    @property
    def nat64_flows(self) -> int:
        return 0 if self._nat64 is None else len(self._nat64)

    # Who is there

    def add(self, session: Session) -> None:
        for address in session.leases.packed:
            self._sessions[address] = session
        (self._capable if session.offload else self._incapable).add(session)
        self._choose_offload()

    def remove(self, session: Session) -> None:
        """The addresses of a session that has been replaced stay with its successor."""
        for address in session.leases.packed:
            if self._sessions.get(address) is session:
                del self._sessions[address]
                if self._nat64 is not None:
                    self._nat64.forget(address)
        self._capable.discard(session)
        self._incapable.discard(session)
        self._choose_offload()
        self.resumed(session)

    def close(self) -> None:
        if self._patience is not None:
            self._patience.cancel()

    def _choose_offload(self) -> None:
        """Super-packets are worth reading only when nobody needs them cut up: cutting costs more
        than reading small ones (spec section 6)."""
        self._tun.set_offload(bool(self._capable) and not self._incapable)

    # From the device to clients

    def from_device(self, packets: list[Offloaded]) -> None:
        wanted: dict[Session, list[Offloaded]] = {}
        for item in packets:
            ends = endpoints(item[1])
            session = None if ends is None else self._sessions.get(ends[1])
            if session is not None:
                wanted.setdefault(session, []).append(item)
            elif ends is None or self._nat64 is None or ends[1] != self._nat64.source:
                self.dropped["no such client"] += 1
            else:
                self._from_ipv4(self._nat64, item, wanted)
        for session, items in wanted.items():
            self._deliver(session, items)

    def _from_ipv4(
        self, nat64: Nat64, item: Offloaded, wanted: dict[Session, list[Offloaded]]
    ) -> None:
        now = self._loop.time()
        try:
            for piece in pieces(*item):
                packet = nat64.to_ipv6(piece, now)
                session = self._sessions.get(packet[24:40])
                if session is not None:
                    wanted.setdefault(session, []).append((NO_OFFLOAD, packet))
        except (Untranslatable, ProtocolError):
            self.dropped["nat64"] += 1

    def _deliver(self, session: Session, items: list[Offloaded]) -> None:
        channel = session.channel
        assert channel is not None, "a session comes here when it has its channel"
        full = session.stalled or channel.overrun >= self._settings.channel_size
        if channel.paused and full:
            session.traffic.dropped["full"] += len(items)
            return
        channel.send(items)
        if channel.paused and not self._settings.drop_on_full and not session.stalled:
            self._wait_for(session)

    def _wait_for(self, session: Session) -> None:
        self._waiting_for.add(session)
        self._tun.pause_reading()
        if self._patience is None:
            self._patience = self._loop.call_later(MAX_WAIT, self._waited_enough)

    def resumed(self, session: Session) -> None:
        """The session takes packets again, or has gone."""
        session.stalled = False
        if session in self._waiting_for:
            self._waiting_for.discard(session)
            if not self._waiting_for:
                self._go_on()

    def _waited_enough(self) -> None:
        for session in self._waiting_for:
            session.stalled = True
        self._waiting_for.clear()
        self._go_on()

    def _go_on(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        self._tun.resume_reading()

    # From a client

    def from_client(self, session: Session) -> Callable[[list[Offloaded]], None]:
        """Takes the packets that `session` sends."""
        own = session.leases.packed
        dropped = session.traffic.dropped

        def receive(packets: list[Offloaded]) -> None:
            for_others: dict[Session, list[Offloaded]] = {}
            for item in packets:
                ends = endpoints(item[1])
                if ends is None:
                    dropped["malformed"] += 1
                    continue
                source, destination = ends
                if source not in own or not self._strict:
                    taken = source in self._sessions or source in self.own
                    why = why_not(source, own, taken, self._settings.spoofing)
                    if why is not None:
                        dropped[why] += 1
                        continue
                other = self._sessions.get(destination)
                if other is None or other is session:
                    why = self._pass_on(destination, item)
                elif self._settings.client_isolation:
                    why = "isolated"
                else:
                    for_others.setdefault(other, []).append(item)
                    continue
                if why is not None:
                    dropped[why] += 1
            for other, items in for_others.items():
                self._deliver(other, items)
            self._tun.read_now()

        return receive

    def _pass_on(self, destination: bytes, item: Offloaded) -> str | None:
        """Hand a packet to the system; why it was dropped, if it was."""
        if is_multicast(destination):
            return "multicast"
        if len(destination) == 16 and self._nat64 is not None and is_ours(destination):
            return self._to_ipv4(self._nat64, destination, item)
        if destination not in self.own and not self._policy.allows(destination):
            return "not allowed"
        return None if self._tun.write(*item) else "refused by the system"

    def _to_ipv4(self, nat64: Nat64, destination: bytes, item: Offloaded) -> str | None:
        if destination[12:] not in self.own and not self._policy.allows(destination[12:]):
            return "not allowed"
        if destination[12:] in self._sessions and self._settings.client_isolation:
            return "isolated"
        if is_multicast(destination[12:]):
            return "multicast"
        now = self._loop.time()
        try:
            for piece in pieces(*item):
                self._tun.write(NO_OFFLOAD, nat64.to_ipv4(piece, now))
        except (Untranslatable, ProtocolError):
            return "nat64"
        return None
