import asyncio

from tests.support.virtual_time import virtual_time

from tunnel_rs.net.expiry import LOOK_AT_CLOCK, Expiry
from tunnel_rs.proto.grants import UNLIMITED, Grant


class Scene:
    """A wall clock that the loop's clock moves, and how often it was judged."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.ahead = 0.0
        self.judged: list[float] = []
        self.expiry = Expiry(self.wall, lambda: self.judged.append(self.wall()))

    def wall(self) -> float:
        return self.loop.time() - 1000.0 + self.ahead


@virtual_time
async def test_a_grant_is_judged_when_it_runs_out() -> None:
    scene = Scene()
    began = scene.wall()
    scene.expiry.watch(Grant(expires=began + 30))
    await asyncio.sleep(100)
    assert [round(moment - began) for moment in scene.judged] == [30]


@virtual_time
async def test_the_time_of_day_is_looked_at_now_and_then_as_it_may_jump() -> None:
    scene = Scene()
    began = scene.loop.time()
    scene.expiry.watch(Grant(expires=scene.wall() + 1e6))
    scene.ahead = 2e6
    await asyncio.sleep(LOOK_AT_CLOCK + 1)
    assert len(scene.judged) == 1 and scene.loop.time() - began < 100


@virtual_time
async def test_a_grant_without_end_and_one_no_longer_watched_are_not_judged() -> None:
    scene = Scene()
    scene.expiry.watch(Grant(expires=scene.wall() + 5))
    scene.expiry.watch(UNLIMITED)
    scene.expiry.watch(Grant(expires=scene.wall() + 5))
    scene.expiry.cancel()
    await asyncio.sleep(1000)
    assert scene.judged == []
