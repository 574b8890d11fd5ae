"""When somebody who was let in has to be judged anew, because what let them in may have run out."""

import asyncio
from collections.abc import Callable

from tunnel_rs.proto.grants import Grant

LOOK_AT_CLOCK = 60.0
"""Seconds between looks at the time of day while a grant that expires is in use: the clock may be
set, and runs on while the machine sleeps."""


class Expiry:
    """Calls `judge` when a watched grant may have run out, or its time is to be looked at again."""

    def __init__(self, wall: Callable[[], float], judge: Callable[[], None]) -> None:
        """`wall` gives seconds since 1970."""
        self._wall = wall
        self._judge = judge
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, grant: Grant) -> None:
        """Look at this grant from now on, and at none before it."""
        self.cancel()
        if grant.expires is not None:
            delay = max(0.0, min(grant.expires - self._wall(), LOOK_AT_CLOCK))
            self._timer = asyncio.get_running_loop().call_later(delay, self._judge)

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
