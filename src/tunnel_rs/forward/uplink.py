"""The client's one link to the server: dialled, authenticated, replaced when it is lost.

Local connections ask it for streams; while there is no link they wait, within limits.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable

from tunnel_rs.errors import (
    AuthRefusedError,
    LinkClosedError,
    ProtocolError,
    StreamResetError,
    TargetError,
    TunnelError,
    UnreachableError,
)
from tunnel_rs.forward.dialogue import AUTH_FAILED, DONE, Dialogue
from tunnel_rs.forward.plain import PlainStreams
from tunnel_rs.forward.settings import ClientSettings
from tunnel_rs.net.link import Link
from tunnel_rs.proto.messages import (
    AuthRequest,
    SourceRequest,
    decode_auth_response,
    decode_source_response,
)
from tunnel_rs.proto.retries import Retries
from tunnel_rs.reports import Reporter, TunnelLost, TunnelUp
from tunnel_rs.values import Protocol, Secret, SourceUrl

Connect = Callable[[], Awaitable[Link]]
"""Dials the server once. Raises TunnelError; `transient` says whether to try again."""

Settle = Callable[[], Awaitable[None]]
"""Makes the link dialled last ready, once the server has let us in. Raises TunnelError."""

AUTH_TIMEOUT = 10.0
"""Seconds the server has to answer our token."""

ANSWER_TIMEOUT = 20.0
"""Seconds the server has to answer a source request: it resolves a name and tries addresses."""

OPEN_RETRY_DELAYS = (0.1, 0.2, 0.4)
"""Seconds before each further attempt to open a stream."""

CONNECT_GRACE = 1.0
"""Seconds beyond the connect timeout: dialling keeps to it itself, and knows better what failed."""


RETRY_AT_LEAST = 0.5
"""Seconds between attempts, however often something changes."""


async def authenticate(link: Link, token: Secret[str]) -> None:
    """Show `token` to the server. Raises AuthRefusedError, UnreachableError, ProtocolError or
    LinkClosedError; the link is left open."""
    dialogue = Dialogue(await link.open_stream())
    dialogue.send(AuthRequest(token))
    dialogue.stream.write_eof()
    try:
        async with asyncio.timeout(AUTH_TIMEOUT):
            response = decode_auth_response(await dialogue.receive())
    except TimeoutError:
        raise UnreachableError(f"the server did not answer the token in {AUTH_TIMEOUT:g} s") from (
            None
        )
    except LinkClosedError as error:
        raise _verdict(error) from None
    finally:
        dialogue.finish(stop=False)
    if not response.accepted:
        raise AuthRefusedError(_refusal(response.reason or "no reason given"))


REVOKED = "the server no longer accepts our token or key (expired or taken away); ask its operator"


def _refusal(reason: str) -> str:
    return f"the server refused our token ({reason}); check the token with the server's operator"


def _verdict(error: LinkClosedError, *, was_in: bool = False) -> TunnelError:
    """What the end of a link means to a client, which may have been let in before."""
    if error.by_peer and error.by_application and error.code == AUTH_FAILED:
        return AuthRefusedError(REVOKED if was_in else _refusal(error.reason))
    return error


class Uplink:
    """Keeps one authenticated link while `run` runs."""

    def __init__(
        self,
        settings: ClientSettings,
        connect: Connect,
        report: Reporter,
        *,
        random: Callable[[], float] = random.random,
        settle: Settle | None = None,
    ) -> None:
        self._settings = settings
        self._connect = connect
        self._settle = settle
        self._report = report
        self._retries = Retries(random=random, eager=settings.eager)
        self._link: Link | None = None
        self._plain: PlainStreams | None = None
        self._up_since = 0.0
        self._is_up = asyncio.Event()
        self._retry_now = asyncio.Event()
        self._waiting = 0

    async def run(self) -> None:
        """Connect, and reconnect whenever the link is lost. Ends only by raising: a final error
        (token refused, another peer answered, or the first loss when not to reconnect)."""
        while True:
            was_up, error = await self._one_link()
            if not error.transient or not self._settings.reconnect:
                self._report(TunnelLost(str(error), None))
                raise error
            await self._pause(self._delay(error, was_up))

    def _delay(self, error: TunnelError, was_up: bool) -> float:
        """Seconds until the next attempt. People are told, unless they know."""
        retries, now = self._retries, asyncio.get_running_loop().time()
        delay = retries.after(error, now, was_up=was_up, wanted=self._waiting > 0)
        if retries.is_news(str(error), now):
            self._report(TunnelLost(str(error), delay))
        return delay

    def retry_now(self) -> None:
        """Something has changed: dial without waiting for the next turn."""
        self._retry_now.set()

    async def _pause(self, delay: float) -> None:
        self._retry_now.clear()
        try:
            async with asyncio.timeout(delay):
                await self._retry_now.wait()
        except TimeoutError:
            return
        await asyncio.sleep(min(delay, RETRY_AT_LEAST))

    async def request(self, source: SourceUrl) -> Dialogue:
        """A stream on which the server has accepted `source`; `hand_over` it to a receiver.

        Waits for the link to come (back) up. Raises TargetError when the server declines, and
        UnreachableError when there is no link in time or too many wait for it.
        """
        for delay in (*OPEN_RETRY_DELAYS, None):
            link = await self._current_link()
            try:
                return await self._ask(link, source)
            except LinkClosedError as error:
                if delay is None:
                    raise UnreachableError(f"cannot open a stream: {error}") from None
            await asyncio.sleep(delay)
        raise AssertionError("unreachable")

    @property
    def link(self) -> Link | None:
        """The authenticated link, None while there is none."""
        return self._link

    @property
    def up_for(self) -> float:
        """Seconds since the last link came up."""
        return asyncio.get_running_loop().time() - self._up_since

    async def _one_link(self) -> tuple[bool, TunnelError]:
        """Whether there was a link, and why there is none (any more)."""
        try:
            link = await self._establish()
        except TunnelError as error:
            return False, error
        except OSError as error:
            return False, UnreachableError(f"cannot connect: {error.strerror or error}")
        self._retries.up()
        self._up_since = asyncio.get_running_loop().time()
        fixed = link.fixed_source
        self._plain = None if fixed is None else PlainStreams(link, fixed)
        self._link = link
        self._is_up.set()
        try:
            ended = await link.wait_closed()
        finally:
            self._is_up.clear()
            self._link = None
            link.close(DONE, "done")
        if isinstance(ended, LinkClosedError):
            return True, _verdict(ended, was_in=True)
        return True, ended if isinstance(ended, TunnelError) else UnreachableError(str(ended))

    async def _establish(self) -> Link:
        loop = asyncio.get_running_loop()
        began = loop.time()
        limit = self._settings.connect_timeout
        try:
            async with asyncio.timeout(limit + CONNECT_GRACE):
                link = await self._connect()
        except TimeoutError:
            raise UnreachableError(f"the server did not answer in {limit:g} s") from None
        try:
            if self._settings.auth_token is not None:
                await authenticate(link, self._settings.auth_token)
            if self._settle is not None:
                await self._settle()
        except BaseException:
            link.close(DONE, "done")
            raise
        link.open_window()
        self._report(TunnelUp(link.peer, link.address, loop.time() - began))
        return link

    async def _current_link(self) -> Link:
        link = self._link
        if link is not None:
            return link
        if self._waiting >= self._settings.max_flows:
            raise UnreachableError("the tunnel is down, and too many connections wait for it")
        self._waiting += 1
        if self._retries.hurries:
            self.retry_now()
        limit = self._settings.pending_timeout
        try:
            async with asyncio.timeout(limit):
                while (link := self._link) is None:
                    await self._is_up.wait()
            return link
        except TimeoutError:
            raise UnreachableError(f"the tunnel did not come up in {limit:g} s") from None
        finally:
            self._waiting -= 1

    async def _ask(self, link: Link, source: SourceUrl) -> Dialogue:
        """One exchange. Raises LinkClosedError when the link is to blame, else TargetError."""
        try:
            async with asyncio.timeout(self._settings.pending_timeout):
                if self._plain is not None:
                    return await self._plain.request(source)
                dialogue = Dialogue(await link.open_stream())
        except TimeoutError:
            raise UnreachableError("the server takes no more streams") from None
        offered = source.protocol is Protocol.UDP and dialogue.stream.max_datagram > 0
        try:
            dialogue.send(SourceRequest(str(source), datagrams=offered))
            async with asyncio.timeout(ANSWER_TIMEOUT):
                response = decode_source_response(await dialogue.receive())
        except TimeoutError:
            dialogue.abandon()
            raise TargetError(f"the server did not answer in {ANSWER_TIMEOUT:g} s") from None
        except StreamResetError:
            dialogue.abandon()
            raise TargetError("the server broke off the request") from None
        except ProtocolError as error:
            dialogue.abandon()
            raise TargetError(f"the server's answer makes no sense: {error}") from None
        except BaseException:
            dialogue.abandon()
            raise
        if not response.accepted:
            dialogue.finish()
            raise TargetError(response.reason or "the server gave no reason")
        dialogue.datagrams = offered and response.datagrams
        return dialogue
