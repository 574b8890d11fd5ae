"""Who may come in: the dialogue every accepted link begins with, bounded and slowed.

Every link has `timeout` seconds. Sources with too many failures wait for their answer, right or
wrong alike, and only few links of one source are heard at a time; both together bound how fast
tokens can be guessed without locking out who has one. What is asked and answered is the caller's.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import Protocol

from tunnel_rs.errors import LinkClosedError
from tunnel_rs.net.link import ByteStream, Link
from tunnel_rs.proto.auth import FailurePenalties
from tunnel_rs.reports import Penalties
from tunnel_rs.values import EndpointId, SocketAddr

AUTH_FAILED = 1
AUTH_TIMEOUT = 2
"""Application close codes of a link, with the reasons `auth_failed` and `auth_timeout`."""

MAX_DELAY = 5.0
"""Most seconds a penalised source waits for its answer: clients give up after 10."""

MAX_WAITING = 256
MAX_WAITING_PER_SOURCE = 16
MAX_WAITING_PENALISED = 4
"""Links that may be in the auth dialogue: over all sources, of one source, of one with penalty."""

_ANSWER_PATIENCE = 1.0
"""Seconds a refused client has to acknowledge the answer before the link is closed."""


class RefusedError(Exception):
    """The link was not let in, and has been closed. The text says why."""


class Entrant(Protocol):
    """One peer in the dialogue."""

    async def judge(self, stream: ByteStream) -> str:
        """Read the request on the first stream; what is wrong with it, empty when nothing is.
        Raises LinkClosedError."""

    def refuse(self, reason: str) -> None:
        """Answer that the peer may not come in, and end the stream."""

    def accept(self) -> None:
        """Answer that the peer may come in, and end the stream."""


class Admission:
    """One for all links of a server."""

    def __init__(self, *, timeout: float, penalties: FailurePenalties | None = None) -> None:
        self._timeout = timeout
        self._penalties = FailurePenalties() if penalties is None else penalties
        self._waiting: Counter[str] = Counter()

    @property
    def penalties(self) -> Penalties:
        """Who has to wait for answers now."""
        return self._penalties.penalties(_now())

    async def admit(self, link: Link, entrant: Entrant) -> None:
        """Return when the peer has been let in. Raises RefusedError."""
        ip, key = source_of(link.address, link.peer)
        try:
            with self._place(link, ip, key):
                async with asyncio.timeout(self._timeout):
                    await self._converse(link, entrant, ip)
        except TimeoutError:
            self._penalties.failed(ip, _now())
            link.close(AUTH_TIMEOUT, "auth_timeout")
            raise RefusedError(f"did not authenticate in {self._timeout:g} s") from None
        except LinkClosedError as error:
            raise RefusedError(f"left before authenticating ({error})") from None

    async def _converse(self, link: Link, entrant: Entrant, ip: str) -> None:
        wrong = await entrant.judge(await link.accept_stream())
        await asyncio.sleep(min(self._penalties.penalty(ip, _now()), MAX_DELAY, self._timeout / 2))
        if not wrong:
            self._penalties.succeeded(ip)
            entrant.accept()
            return
        self._penalties.failed(ip, _now())
        entrant.refuse(wrong)
        await acknowledged(link)
        link.close(AUTH_FAILED, "auth_failed")
        raise RefusedError(wrong)

    @contextmanager
    def _place(self, link: Link, ip: str, key: str) -> Iterator[None]:
        penalised = self._penalties.penalty(ip, _now()) > 0
        most = MAX_WAITING_PENALISED if penalised else MAX_WAITING_PER_SOURCE
        if self._waiting[key] >= most or self._waiting.total() >= MAX_WAITING:
            link.close(AUTH_TIMEOUT, "too many connections wait for authentication")
            raise RefusedError("too many connections wait for authentication")
        self._waiting[key] += 1
        try:
            yield
        finally:
            self._waiting[key] -= 1
            if not self._waiting[key]:
                del self._waiting[key]


def source_of(address: str, peer: EndpointId) -> tuple[str, str]:
    """Whom to hold responsible: the IP address of `address`, and the network that counts as one
    source in the number of places. Behind a relay it is the peer's key: nobody there is to pay for
    his neighbours; keys are cheap, so that what stops guessing there is the limit over all."""
    try:
        ip = SocketAddr.parse(address).ip
    except ValueError:
        return str(peer), str(peer)
    parsed = ip_address(ip)
    if isinstance(parsed, IPv6Address):
        return ip, str(IPv6Network((parsed, 64), strict=False))
    return ip, ip


async def acknowledged(link: Link) -> None:
    """Give the peer a little time to acknowledge what was written."""
    try:
        async with asyncio.timeout(_ANSWER_PATIENCE):
            await link.drain()
    except TimeoutError:
        pass


def _now() -> float:
    return asyncio.get_running_loop().time()
