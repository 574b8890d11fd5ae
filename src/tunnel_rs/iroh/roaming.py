"""Keeps the connections of an endpoint alive and on their best paths while networks change.

Each connection of several paths is steered, each dialled one has a keeper that looks for other
ways; both hear of a change of the network from here.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence

from tunnel_rs.errors import UnreachableError
from tunnel_rs.iroh.path_keeper import PathKeeper
from tunnel_rs.iroh.path_steering import PathSteering
from tunnel_rs.iroh.redial import Redial
from tunnel_rs.iroh.ways import Way
from tunnel_rs.net.quic import QuicEndpoint
from tunnel_rs.net.quic_connection import QuicConnection
from tunnel_rs.net.tasks import TaskScope
from tunnel_rs.proto.engine import Address
from tunnel_rs.proto.path_choice import is_relayed
from tunnel_rs.proto.transport_settings import TransportSettings
from tunnel_rs.reports import Reporter
from tunnel_rs.values import EndpointId


class Roaming:
    """One for each endpoint; `close` it before its connections."""

    def __init__(
        self,
        quic: QuicEndpoint,
        settings: TransportSettings,
        report: Reporter,
        tasks: TaskScope,
        *,
        direct_only: bool = False,
        on_found_again: Callable[[], None] = lambda: None,
        on_direct_failed: Callable[[], None] = lambda: None,
        on_path: Callable[[], None] = lambda: None,
    ) -> None:
        """`settings`: for dialling a peer again. `on_found_again` is called when a peer that had
        lost our connection has been dialled again: `take` has the new one. `on_direct_failed` is
        called when a direct path of any connection was given up as nothing passed, `on_path` when
        data of one that we dialled goes another way than before."""
        self._quic = quic
        self._settings = settings
        self._report = report
        self._tasks = tasks
        self._direct_only = direct_only
        self._on_found_again = on_found_again
        self._on_direct_failed = on_direct_failed
        self._on_path = on_path
        self._steered: dict[QuicConnection, PathSteering] = {}
        self._keepers: list[PathKeeper] = []
        self._again: dict[EndpointId, QuicConnection] = {}
        self._latest: QuicConnection | None = None
        self._moved = asyncio.Event()

    def take(self, peer: EndpointId) -> QuicConnection | None:
        """A connection to `peer` that was made while an old one was silent, if there is one."""
        connection = self._again.pop(peer, None)
        if connection is None or connection.engine.is_closing:
            return None
        return connection

    def dialled(
        self,
        connection: QuicConnection,
        known: Iterable[Address],
        make_ways: Callable[[], Sequence[Way]],
        spare_ways: Sequence[Way] = (),
    ) -> None:
        """Look after a new connection to a server. `spare_ways`: see `PathKeeper`."""
        peer = connection.peer
        connection.engine.tolerate_silence()
        moved = asyncio.Event()

        def on_path() -> None:
            moved.set()
            self._on_path()

        redial = Redial(
            self._quic, connection, peer, make_ways, self._settings, self._tasks, self._lost
        )
        keeper = PathKeeper(
            self._quic,
            connection,
            peer,
            make_ways(),
            self._report,
            known,
            redial,
            spare_ways=() if self._direct_only else spare_ways,
            direct_only=self._direct_only,
            on_path=on_path,
        )
        self._keepers = [keeper for keeper in self._keepers if keeper.is_running]
        self._keepers.append(keeper)

        def steered() -> None:
            on_path()
            keeper.wake()

        self._steer(connection, None, steered)
        keeper.start()
        self._latest, self._moved = connection, moved

    @property
    def is_direct(self) -> bool:
        """Whether the connection dialled last is up, and data does not go over a relay."""
        engine = self._latest.engine if self._latest is not None else None
        return engine is not None and not engine.is_closing and not is_relayed(engine.address)

    def accepted(self, connection: QuicConnection) -> None:
        """Look after a connection that a peer has made to us."""
        self._steer(connection, connection.peer)

    def network_changed(self) -> None:
        """Ask all peers at once, on all paths, and look for new ones."""
        for steering in self._steered.values():
            steering.network_changed()
        for keeper in self._keepers:
            keeper.network_changed()
        self._quic.network_changed()

    def close(self) -> None:
        """No more timers and searches."""
        for keeper in self._keepers:
            keeper.stop()
        for steering in self._steered.values():
            steering.stop()
        for connection in self._again.values():
            connection.close(0, "not needed")
        self._again.clear()

    def _steer(
        self,
        connection: QuicConnection,
        peer: EndpointId | None,
        on_path: Callable[[], None] = lambda: None,
    ) -> None:
        self._steered = {
            each: steering for each, steering in self._steered.items() if not each.engine.is_closing
        }
        if connection.engine.is_multipath:
            steering = self._steered[connection] = PathSteering(
                connection,
                self._report,
                peer=peer,
                direct_only=self._direct_only,
                on_path=on_path,
                on_direct_failed=self._on_direct_failed,
            )
            steering.start()

    async def until_direct(self, *, timeout: float) -> None:
        """Wait until the connection dialled last is direct. Raises UnreachableError when it is not
        within `timeout` seconds, and what ended the connection."""
        connection, moved = self._latest, self._moved
        assert connection is not None, "nothing has been dialled"
        try:
            async with asyncio.timeout(timeout), TaskScope("direct path") as scope:
                ended = scope.spawn(connection.wait_closed(), "end")
                ended.add_done_callback(lambda _: moved.set())
                while is_relayed(connection.engine.address):
                    await moved.wait()
                    moved.clear()
                    if ended.done():
                        raise ended.result()
        except TimeoutError:
            connection.close(0, "no direct path")
            raise UnreachableError(
                f"the server answers over a relay, but no direct path to it was found in "
                f"{timeout:g} s; leave out --direct-only, or let UDP through to one of both sides"
            ) from None

    def _lost(self, new: QuicConnection) -> None:
        self._again[new.peer] = new
        self._on_found_again()
