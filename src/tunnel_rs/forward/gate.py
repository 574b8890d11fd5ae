"""Server side of the auth dialogue: who may come in (spec `tunnel-protocol.md`, "Auth").

Every link has `timeout` seconds. Sources with too many failures wait for their answer, right or
wrong alike, and only few links of one source are heard at a time; both together bound how fast
tokens can be guessed without locking out who has one.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv6Address, IPv6Network, ip_address

from tunnel_rs.errors import LinkClosedError, ProtocolError, StreamResetError
from tunnel_rs.forward.dialogue import AUTH_FAILED, AUTH_TIMEOUT, Dialogue
from tunnel_rs.net.link import Link
from tunnel_rs.proto.auth import FailurePenalties, token_accepted
from tunnel_rs.proto.messages import AuthResponse, decode_auth_request
from tunnel_rs.values import EndpointId, Secret, SocketAddr

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


class AuthGate:
    """Judges accepted links. One gate for all links of a server."""

    def __init__(
        self,
        tokens: Callable[[], tuple[Secret[str], ...]],
        *,
        timeout: float,
        penalties: FailurePenalties | None = None,
    ) -> None:
        self._tokens = tokens
        self._timeout = timeout
        self._penalties = FailurePenalties() if penalties is None else penalties
        self._waiting: Counter[str] = Counter()

    async def admit(self, link: Link) -> None:
        """Return when the peer has shown an accepted token. Raises RefusedError."""
        ip, key = source_of(link.address, link.peer)
        try:
            with self._place(link, ip, key):
                async with asyncio.timeout(self._timeout):
                    await self._converse(link, ip)
        except TimeoutError:
            self._penalties.failed(ip, _now())
            link.close(AUTH_TIMEOUT, "auth_timeout")
            raise RefusedError(f"did not authenticate in {self._timeout:g} s") from None
        except LinkClosedError as error:
            raise RefusedError(f"left before authenticating ({error})") from None

    async def _converse(self, link: Link, ip: str) -> None:
        dialogue = Dialogue(await link.accept_stream())
        wrong = await self._judge(dialogue)
        await asyncio.sleep(min(self._penalties.penalty(ip, _now()), MAX_DELAY, self._timeout / 2))
        if not wrong:
            self._penalties.succeeded(ip)
            dialogue.finish(AuthResponse(True), stop=False)
            return
        self._penalties.failed(ip, _now())
        dialogue.finish(AuthResponse(False, wrong), stop=False)
        await _acknowledged(link)
        link.close(AUTH_FAILED, "auth_failed")
        raise RefusedError(wrong)

    async def _judge(self, dialogue: Dialogue) -> str:
        """What is wrong with the peer's request; empty when nothing is."""
        try:
            request = decode_auth_request(await dialogue.receive())
        except (ProtocolError, StreamResetError) as error:
            return str(error)
        if token_accepted(request.auth_token, self._tokens()):
            return ""
        return "the token is not accepted"

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


async def _acknowledged(link: Link) -> None:
    try:
        async with asyncio.timeout(_ANSWER_PATIENCE):
            await link.drain()
    except TimeoutError:
        pass


def _now() -> float:
    return asyncio.get_running_loop().time()
