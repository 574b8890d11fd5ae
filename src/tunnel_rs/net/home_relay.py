"""Staying at home on one relay: measure, choose, connect, and move when the home is lost.

The choice itself is `proto.home_relay`. Peers reach us at our home only, so whoever publishes our
address listens to `on_home`.
"""

import asyncio
import random
from collections.abc import Callable, Sequence

from tunnel_rs.net.relay import RelayDown, RelayState, RelayUp
from tunnel_rs.net.relay_face import RelayFace
from tunnel_rs.net.relay_probe import measure
from tunnel_rs.net.tasks import TaskScope
from tunnel_rs.proto.home_relay import HomeRelayChoice, next_report_delay
from tunnel_rs.proto.relay_addr import RelayUrl

LOSS_PATIENCE = 1.0
"""Seconds the home may be down before another relay is tried."""

SEARCH_EVERY = 2.0
"""Seconds between measurements while no home is connected."""

STRAGGLER_TIME = 1.0
"""Seconds relays have to answer a measurement after the first has."""

MAX_MEASURED = 16
"""Relays that take part in the choice; more are not looked at."""

HomeCallback = Callable[[str | None], None]
"""Gets the URL of the home once it has let us in, and None when it is lost."""


class HomeRelay:
    """Keeps an endpoint at home on the nearest of its relays.

    Pass every `RelayState` of the face to `state_changed`. With a single relay nothing is measured.
    """

    def __init__(
        self, face: RelayFace, relays: Sequence[RelayUrl], on_home: HomeCallback = lambda _: None
    ) -> None:
        self._face = face
        self._relays = tuple(relays[:MAX_MEASURED])
        self._on_home = on_home
        self._choice = HomeRelayChoice(tuple(relay.text for relay in self._relays))
        self._kept: str | None = None
        self._told: str | None = None
        self._loop = asyncio.get_running_loop()
        self._patience: asyncio.TimerHandle | None = None
        self._scope = TaskScope("home relay")
        self._measure_now = asyncio.Event()

    @property
    def url(self) -> str | None:
        """The home that has let us in, and so the one to publish."""
        return self._told

    def start(self) -> None:
        if len(self._relays) == 1:
            self._move(self._choice.measured({self._relays[0].text: 0.0}, self._loop.time()))
        elif self._relays:
            self._scope.spawn(self._keep_measuring(), "measuring")

    async def close(self) -> None:
        """Stop choosing; connections are the face's. Idempotent."""
        self._forget_patience()
        await self._scope.aclose()

    def network_changed(self) -> None:
        """Measure at once."""
        self._measure_now.set()

    def state_changed(self, state: RelayState) -> None:
        if isinstance(state, RelayUp):
            if self._choice.connected(state.url) == state.url:
                self._move(state.url)
                self._forget_patience()
                self._tell(state.url)
        elif isinstance(state, RelayDown) and state.url == self._kept:
            self._tell(None)
            if self._patience is None:
                self._wait_for_home()

    def _wait_for_home(self) -> None:
        self._patience = self._loop.call_later(LOSS_PATIENCE, self._give_up_home)

    def _give_up_home(self) -> None:
        self._patience = None
        if self._kept is not None and self._kept not in self._face.connected:
            self._move(self._choice.lost(self._kept))
            self._measure_now.set()

    def _forget_patience(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _move(self, url: str | None) -> None:
        if url is None or url == self._kept:
            return
        self._forget_patience()
        if self._kept is not None:
            self._face.release(self._kept)
        self._kept = url
        self._face.keep(url)
        if url in self._face.connected:
            self._tell(url)
        else:
            # One that never answers, and so sends no word of failure for long, is given up too.
            self._wait_for_home()

    def _tell(self, url: str | None) -> None:
        if url != self._told:
            self._told = url
            self._on_home(url)

    async def _keep_measuring(self) -> None:
        while True:
            found = self._choice.measured(await self._report(), self._loop.time())
            # One that does not let itself be measured may be a relay all the same, and connecting
            # to it tells what is wrong.
            self._move(found if found or self._kept else self._relays[0].text)
            self._measure_now.clear()
            delay = next_report_delay(random.random) if self._told else SEARCH_EVERY
            try:
                async with asyncio.timeout(delay):
                    await self._measure_now.wait()
            except TimeoutError:
                pass

    async def _report(self) -> dict[str, float | None]:
        """What each relay's latency is. Relays that are much slower than the first to answer are
        not waited for: they will not be home."""
        async with TaskScope("measuring") as scope:
            tasks = {
                relay.text: scope.spawn(measure(relay, self._face.session), relay.text)
                for relay in self._relays
            }
            pending = set(tasks.values())
            while pending and not any(map(_answered, tasks.values())):
                _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            if pending:
                await asyncio.wait(pending, timeout=STRAGGLER_TIME)
            return {url: task.result() if task.done() else None for url, task in tasks.items()}


def _answered(task: "asyncio.Task[float | None]") -> bool:
    return task.done() and task.result() is not None
