"""Finding peers on the local network: the shell around `proto.lan_discovery`."""

import asyncio
import errno
import random
from collections.abc import Callable, Sequence

from tunnel_rs.net.interfaces import Interface, local_interfaces, reachable_addresses
from tunnel_rs.net.multicast import MDNS_PORT, MulticastGroups
from tunnel_rs.proto import lan_discovery
from tunnel_rs.reports import Notice, Reporter, silent
from tunnel_rs.values import EndpointId, SocketAddr


class LanLookup:
    """A look-up under way. Ends by itself when its time is over."""

    def __init__(self, cancel: Callable[[], None]) -> None:
        self._cancel = cancel

    def cancel(self) -> None:
        """Stop; no callback is made after this. Idempotent."""
        self._cancel()


class LanDiscovery:
    """Announces endpoints and looks up others, by multicast DNS.

    Sockets and timers only, no task. Whatever the network is like, no method fails: without
    multicast nothing is found, and one `Notice` says why. `scan`, `port` and `uniform` are for
    tests.
    """

    def __init__(
        self,
        report: Reporter = silent,
        *,
        scan: Callable[[], Sequence[Interface]] = local_interfaces,
        port: int = MDNS_PORT,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        self._report = report
        self._port = port
        self._machine = lan_discovery.SwarmMember(uniform)
        self._groups = MulticastGroups(
            self._received,
            changed=self._network_changed,
            unavailable=self._tell_unavailable,
            scan=scan,
            port=port,
        )
        self._lookups: dict[int, tuple[Callable[[SocketAddr], None], Callable[[], None] | None]]
        self._lookups = {}
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self) -> None:
        """Open the sockets. Call this first."""
        self._loop = asyncio.get_running_loop()
        self._groups.open()

    async def close(self) -> None:
        """Fall silent: sockets and timers are gone, look-ups end without a callback. Idempotent."""
        self._loop = None
        self._lookups.clear()
        self._groups.close()
        if self._timer is not None:
            self._timer.cancel()

    def announce(
        self, endpoint_id: EndpointId, addresses: Callable[[], Sequence[SocketAddr]]
    ) -> None:
        """Tell who asks, from now on, that `endpoint_id` is reached at `addresses()`.

        `addresses` is called for each answer and may simply give the local addresses of the bound
        sockets: a wildcard is replaced by what the interfaces have at that time (`0.0.0.0` for
        IPv4, `[::]` for IPv6 only). Raises RuntimeError when not started.
        """
        loop = self._running_loop()
        self._machine.announce(endpoint_id, lambda: self._expand(addresses()), loop.time())
        self._turn()

    def lookup(
        self,
        endpoint_id: EndpointId,
        on_found: Callable[[SocketAddr], None],
        *,
        timeout: float | None = None,
        on_end: Callable[[], None] | None = None,
    ) -> LanLookup:
        """Call `on_found` for each address, once, that is announced for `endpoint_id`.

        Goes on for `timeout` seconds (then `on_end` is called) or until cancelled. The most
        plausible address of an announcement comes first; at most 32 come. They are hints from
        whoever is on the network: the handshake must prove the key. Callbacks run in the event
        loop, never inside this call. Raises RuntimeError when not started.
        """
        loop = self._running_loop()
        self._groups.refresh()
        handle = self._machine.start_lookup(endpoint_id, loop.time(), timeout)
        self._lookups[handle] = (on_found, on_end)
        loop.call_soon(self._turn)
        return LanLookup(lambda: self._cancel(handle))

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            raise RuntimeError("LanDiscovery is not started, or is closed")
        return self._loop

    def _cancel(self, handle: int) -> None:
        if self._lookups.pop(handle, None) is not None:
            self._machine.cancel_lookup(handle)
            self._turn()

    def _expand(self, addresses: Sequence[SocketAddr]) -> Sequence[SocketAddr]:
        return reachable_addresses(addresses, self._groups.interfaces)

    def _received(self, packet: bytes, source_ip: str) -> None:
        if self._loop is not None:
            self._machine.receive(packet, source_ip, self._loop.time())
            self._turn()

    def _network_changed(self) -> None:
        if self._loop is not None:
            self._machine.network_changed(self._loop.time())
            self._turn()

    def _timer_due(self) -> None:
        if self._loop is not None:
            self._machine.handle_timer(self._loop.time())
            self._turn()

    def _turn(self) -> None:
        """Carry out what the machine wants after each input."""
        if self._loop is None:
            return
        for packet in self._machine.outgoing():
            self._groups.send(packet)
        for event in self._machine.events():
            self._deliver(event)
        self._arm_timer()

    def _deliver(self, event: lan_discovery.Event) -> None:
        if isinstance(event, lan_discovery.LookupEnded):
            _, on_end = self._lookups.pop(event.lookup, (None, None))
            if on_end is not None:
                on_end()
            return
        for address in event.addresses:
            if event.lookup in self._lookups:  # a callback may cancel
                self._lookups[event.lookup][0](address)

    def _arm_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self._machine.next_timer()
        if due is not None and self._loop is not None:
            self._timer = self._loop.call_at(due, self._timer_due)

    def _tell_unavailable(self, error: OSError) -> None:
        if error.errno == errno.EADDRINUSE:
            reason = f"another program uses UDP port {self._port} and does not share it"
        else:
            reason = error.strerror or str(error)
        text = f"LAN discovery is off: {reason}; peers are found by their other addresses only"
        self._report(Notice("warning", text))
