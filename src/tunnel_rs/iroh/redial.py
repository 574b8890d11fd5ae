"""Asks for a silent server anew, beside the connection that is silent.

Silence has two causes: the network is gone, and then the old connection goes on when it is back; or
the server has lost it (it was restarted elsewhere), and then it never will. A handshake tells: who
completes it is there. Forwarded connections live as long as the old connection does, so that is
only given up for a new one, after a last chance to answer.
"""

import asyncio
from collections.abc import Callable, Sequence

from tunnel_rs.errors import TunnelError
from tunnel_rs.iroh.dial import Dialler
from tunnel_rs.iroh.ways import Way
from tunnel_rs.net.quic import QuicEndpoint
from tunnel_rs.net.quic_connection import QuicConnection
from tunnel_rs.net.tasks import TaskScope
from tunnel_rs.proto.transport_settings import TransportSettings
from tunnel_rs.reports import silent
from tunnel_rs.values import EndpointId

ONE_TRY, PAUSE = 10.0, 2.0
"""Seconds that one handshake may take, and between one and the next."""

LAST_CHANCE = 2.0
"""Seconds for the old connection to answer, once the server is known to be there."""


class Redial:
    """`start` while the connection is silent, `cancel` when it is heard again."""

    def __init__(
        self,
        quic: QuicEndpoint,
        connection: QuicConnection,
        peer: EndpointId,
        make_ways: Callable[[], Sequence[Way]],
        settings: TransportSettings,
        tasks: TaskScope,
        on_lost: Callable[[QuicConnection], None],
    ) -> None:
        """`make_ways`: a search of our own. `on_lost` gets the new connection: the server has lost
        the old one, which has been closed."""
        self._quic = quic
        self._connection = connection
        self._peer = peer
        self._make_ways = make_ways
        self._settings = settings
        self._tasks = tasks
        self._on_lost = on_lost
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Idempotent."""
        if self._task is None:
            self._task = self._tasks.spawn(self._run(), f"redial {self._peer.short}")

    def cancel(self) -> None:
        """Idempotent."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _run(self) -> None:
        while True:
            ways = self._make_ways()
            dialler = Dialler(self._quic, self._peer, ways, self._settings, silent)
            try:
                new = await dialler.run(ONE_TRY)
            except TunnelError:
                await asyncio.sleep(PAUSE)
                continue
            if not await self._answers_now(new):
                self._connection.close(0, "the server has lost the connection")
                self._on_lost(new)
            return

    async def _answers_now(self, new: QuicConnection) -> bool:
        """Whether the old connection works after all; the new one is closed then."""
        loop, engine = asyncio.get_running_loop(), self._connection.engine
        keep = False
        try:
            engine.ask(loop.time())
            self._connection.schedule_flush()
            ends = loop.time() + LAST_CHANCE
            # Asking has begun a new silence; an answer ends it.
            await asyncio.sleep(0)
            while loop.time() < ends:
                await asyncio.sleep(LAST_CHANCE / 20)
                if engine.silent_for(loop.time()) == 0.0:
                    return True
            keep = True
            return False
        finally:
            if not keep:
                new.close(0, "not needed")
