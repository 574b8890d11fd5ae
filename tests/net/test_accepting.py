"""Serving every link that comes."""

import asyncio

import pytest
from tests.support.memory_link import link_pair

from tunnel_rs.errors import LinkClosedError
from tunnel_rs.net import accepting
from tunnel_rs.net.accepting import accept_links
from tunnel_rs.net.link import Link
from tunnel_rs.net.tasks import TaskScope


class Endpoint:
    """Gives the links it was made with, then ends."""

    def __init__(self, *links: Link) -> None:
        self._links = list(links)

    async def accept(self) -> Link:
        if not self._links:
            raise LinkClosedError(0, "the endpoint was closed")
        return self._links.pop(0)


class Servant:
    """Serves each link until told to stop."""

    def __init__(self) -> None:
        self.served: list[Link] = []
        self.done = asyncio.Event()

    async def serve(self, link: Link) -> None:
        self.served.append(link)
        await self.done.wait()


async def test_every_link_is_served_in_a_task_of_its_own() -> None:
    servant, links = Servant(), [link_pair()[0], link_pair()[0]]
    async with TaskScope("links") as scope:
        await accept_links(Endpoint(*links), servant, scope)
        await asyncio.sleep(0)
        assert servant.served == links
        servant.done.set()
        await scope.join()


async def test_a_link_too_many_is_told_to_try_later() -> None:
    servant, (first, _), (second, far) = Servant(), link_pair(), link_pair()
    async with TaskScope("links", limit=1) as scope:
        await accept_links(Endpoint(first, second), servant, scope)
        ended = await far.wait_closed()
        assert isinstance(ended, LinkClosedError)
        assert (ended.code, ended.reason) == (3, "busy")
        servant.done.set()
        await scope.join()


async def test_an_endpoint_that_does_not_end_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Stuck:
        async def close(self, code: int = 0, reason: str = "done") -> None:
            await asyncio.Event().wait()

    monkeypatch.setattr(accepting, "CLOSE_TIME", 0.01)
    await accepting.close_in_time(Stuck())
