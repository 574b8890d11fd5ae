"""One engine with several UDP sockets on loopback, for tests against peers that we did not write.

Each socket has a name; the engine's addresses are (ip, port, name), so that two sockets are two
ways to one peer. A way can be slow or dead.
"""

import asyncio
import os
from collections.abc import Callable
from typing import Any

from aioquic.quic.events import QuicEvent, StreamDataReceived

from tunnel_rs.proto.fast_engine import FastEngine
from tunnel_rs.proto.multipath import MultipathEngine
from tunnel_rs.proto.nat_traversal import shared_budget
from tunnel_rs.proto.path_state import PathState
from tunnel_rs.proto.transport_settings import TransportSettings
from tunnel_rs.proto.traversal import Traversal
from tunnel_rs.values import EndpointId, SocketAddr

from .engines import ALPN, CLIENT_IDENTITY, SERVER_IDENTITY, TOKENS

WayAddress = tuple[str, int, str]


class _Socket(asyncio.DatagramProtocol):
    def __init__(self, driver: "EngineDriver", name: str) -> None:
        self._driver, self._name = driver, name

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        self._driver.arrived(data, (addr[0], addr[1], self._name))


class EngineDriver:
    """Runs one engine in the running loop. Make it, `bind`, then `dial` or wait for a client."""

    def __init__(
        self,
        settings: TransportSettings | None = None,
        *,
        make: type[MultipathEngine] = FastEngine,
        nat: bool = False,
    ) -> None:
        self.settings = settings or TransportSettings(silence_timeout=30.0)
        self.make = make
        self.engine: MultipathEngine | None = None
        self.events: list[QuicEvent] = []
        self.received: dict[int, bytearray] = {}
        self.ended: set[int] = set()
        self.delays: dict[str, float] = {}
        self.dead: set[str] = set()
        self.sent: dict[str, int] = {}
        self._loop = asyncio.get_running_loop()
        self._transports: dict[str, asyncio.DatagramTransport] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._changed = asyncio.Event()
        self._traversal = self._make_traversal() if nat else None

    def _make_traversal(self) -> Traversal:
        return Traversal(
            budget=shared_budget(self._loop.time()),
            # From the last socket: the first one's path is there already.
            to_address=lambda to: (to.ip, to.port, list(self._transports)[-1]),
            to_socket=_to_socket,
            reaches=lambda address: not address.is_ipv6,
            random_bytes=os.urandom,
        )

    async def bind(self, *names: str) -> list[SocketAddr]:
        """One socket for each name; where they are."""
        bound = []
        for name in names:
            transport, _ = await self._loop.create_datagram_endpoint(
                lambda name=name: _Socket(self, name), local_addr=("127.0.0.1", 0)
            )
            self._transports[name] = transport
            self.sent[name] = 0
            bound.append(SocketAddr(*transport.get_extra_info("sockname")[:2]))
        return bound

    def dial(self, peer: EndpointId, address: WayAddress) -> None:
        engine = self.make.client(
            self.settings,
            CLIENT_IDENTITY,
            TOKENS,
            peer=peer,
            alpn=ALPN,
            candidates=[address],
            now=self._loop.time(),
            traversal=self._traversal,
        )
        assert isinstance(engine, MultipathEngine)
        self.engine = engine
        self.pump()

    @property
    def running(self) -> MultipathEngine:
        assert self.engine is not None
        return self.engine

    @property
    def now(self) -> float:
        return self._loop.time()

    def paths(self) -> list[PathState]:
        return self.running.paths(self.now)

    def path(self, name: str) -> PathState | None:
        """The open path over the socket of that name."""
        return next((path for path in self.paths() if way_of(path) == name), None)

    def data_way(self) -> str:
        return next(way_of(path) for path in self.paths() if path.is_data)

    def event(self, kind: type[QuicEvent]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    def arrived(self, data: bytes, address: WayAddress) -> None:
        if address[2] in self.dead:
            return
        delay = self.delays.get(address[2])
        if delay:
            self._loop.call_later(delay, self._take, data, address)
        else:
            self._take(data, address)

    def _take(self, data: bytes, address: WayAddress) -> None:
        if self.engine is None:
            if not data[0] & 0x80:
                return
            engine = self.make.server(
                self.settings,
                SERVER_IDENTITY,
                TOKENS,
                alpn=ALPN,
                original_destination_connection_id=data[6 : 6 + data[5]],
                traversal=self._traversal,
            )
            assert isinstance(engine, MultipathEngine)
            self.engine = engine
        self.engine.receive(memoryview(data), len(data), address, self.now)
        self.pump()

    def pump(self) -> None:
        """Hand on what the engine has to say, and set its timer."""
        engine = self.running
        while (event := engine.next_event()) is not None:
            self.events.append(event)
            if isinstance(event, StreamDataReceived):
                self.received.setdefault(event.stream_id, bytearray()).extend(event.data)
                engine.consumed(event.stream_id, len(event.data))
                if event.end_stream:
                    self.ended.add(event.stream_id)
        for data, size, address in engine.trains(self.now):
            for start in range(0, len(data), size):
                self._send(bytes(data[start : start + size]), address)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = engine.get_timer()
        if due is not None:
            self._timer = self._loop.call_at(due, self._on_timer)
        self._changed.set()

    def _send(self, datagram: bytes, address: Any) -> None:
        ip, port, name = address
        if name in self.dead:
            return
        self.sent[name] += len(datagram)
        delay = self.delays.get(name)
        if delay:
            self._loop.call_later(delay, self._put, name, datagram, (ip, port))
        else:
            self._put(name, datagram, (ip, port))

    def _put(self, name: str, datagram: bytes, to: tuple[str, int]) -> None:
        transport = self._transports[name]
        if not transport.is_closing():
            transport.sendto(datagram, to)

    def _on_timer(self) -> None:
        self._timer = None
        self.running.handle_timer(self.now)
        self.pump()

    async def until(self, holds: Callable[[], bool], seconds: float = 10.0) -> None:
        """Wait for a state of the engine. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            while not holds():
                self._changed.clear()
                await self._changed.wait()

    def close(self) -> None:
        if self.engine is not None and not self.engine.is_terminated:
            self.engine.close(0, None, "done")
            self.pump()
        if self._timer is not None:
            self._timer.cancel()
        for transport in self._transports.values():
            transport.close()


def way_of(path: PathState) -> str:
    address = path.address
    assert isinstance(address, tuple)
    return str(address[2])


def _to_socket(address: Any) -> SocketAddr | None:
    return SocketAddr(address[0], address[1])
