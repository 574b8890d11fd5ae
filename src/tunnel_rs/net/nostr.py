"""Nostr relays over WebSockets: any one of several is enough.

Each relay has a task that connects, subscribes, and connects again. Events that were published a
moment ago are published again on a relay that comes late.
"""

import asyncio
import random
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import aiohttp

from tunnel_rs.errors import ConfigError
from tunnel_rs.net.proxy import environment_proxy
from tunnel_rs.net.tasks import TaskScope
from tunnel_rs.proto.backoff import Backoff
from tunnel_rs.proto.nostr_events import Event, has_true_id
from tunnel_rs.proto.nostr_relay import (
    MAX_MESSAGE,
    Arrived,
    Published,
    RelayNotice,
    RelaySession,
    Subscribed,
    SubscriptionClosed,
)
from tunnel_rs.reports import Notice, Reporter

CONNECT_TIMEOUT = 10.0
HEARTBEAT = 30.0
"""Seconds between WebSocket pings; a relay that does not answer one is connected to anew."""

RECENT = 30.0
"""Seconds for which a published event is worth repeating on a relay that connects."""
MAX_RECENT = 32
MAX_SEEN = 4096
"""Events remembered, so that those several relays deliver are handed on once."""

VERDICT_PATIENCE = 5.0
"""Seconds relays have to say whether they take an event, before we tell that none did."""

_STABLE = 30.0


@dataclass(slots=True)
class Verdicts:
    """What became of one published event."""

    event: Event
    at: float
    accepted: int = 0
    refusals: int = 0
    reason: str = ""
    judged: bool = False


class NostrRelays:
    """`on_event` gets each event once, not verified. Use as an async context manager."""

    def __init__(
        self,
        urls: tuple[str, ...],
        filter: dict[str, object],
        sign_auth: Callable[[str, str], Event],
        on_event: Callable[[Event], None],
        report: Reporter,
        *,
        random: Callable[[], float] = random.random,
    ) -> None:
        """`sign_auth(url, challenge)` makes what a relay asks for by AUTH."""
        self._urls = urls
        self._filter = filter
        self._sign_auth = sign_auth
        self._on_event = on_event
        self._report = report
        self._random = random
        self._loop = asyncio.get_running_loop()
        self._sockets: dict[str, _Connected] = {}
        self._recent: dict[str, Verdicts] = {}
        self._refusals: dict[str, str] = {}
        self._seen: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._tasks = TaskScope("nostr", on_failure=self._failed)
        self._subscribed = asyncio.Event()
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "NostrRelays":
        self._http = aiohttp.ClientSession(
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_TIMEOUT),
        )
        for url in self._urls:
            self._tasks.spawn(self._keep(url), url)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._tasks.aclose()
        if self._http is not None:
            await self._http.close()

    @property
    def connected(self) -> tuple[str, ...]:
        """The relays whose subscription is up."""
        return tuple(url for url, each in self._sockets.items() if each.subscribed)

    async def wait_subscribed(self, timeout: float) -> bool:
        """Wait until any relay delivers events; False when none did in time."""
        try:
            async with asyncio.timeout(timeout):
                await self._subscribed.wait()
        except TimeoutError:
            return False
        return True

    def publish(self, event: Event) -> None:
        """Send an event to all relays, those included that connect within a moment."""
        now = self._loop.time()
        for old in [id for id, v in self._recent.items() if now - v.at > RECENT]:
            del self._recent[old]
        while len(self._recent) >= MAX_RECENT:
            del self._recent[next(iter(self._recent))]
        self._recent[event.id] = Verdicts(event, now)
        for connected in self._sockets.values():
            connected.publish(event)
        self._tasks.spawn(self._tell_if_refused(event.id), "verdict")

    async def _tell_if_refused(self, event_id: str) -> None:
        await asyncio.sleep(VERDICT_PATIENCE)
        verdicts = self._recent.get(event_id)
        if verdicts is None or verdicts.accepted:
            return
        if verdicts.refusals:
            why = f"all that answered refused it ({verdicts.reason or 'without a reason'})"
        else:
            why = "no relay has answered"
        advice = "name other relays (--relay)"
        if verdicts.reason.startswith("blocked"):
            advice += ", or set the same event_kind on both sides"
        self._report(Notice("warning", f"the other side may not hear us: {why}; {advice}"))

    # One relay

    async def _keep(self, url: str) -> None:
        backoff = Backoff(random=self._random)
        told = False
        while True:
            began = self._loop.time()
            try:
                why = await self._converse(url)
            except ConfigError as error:
                why = str(error)
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                why = _why(error)
            if self._loop.time() - began > _STABLE:
                backoff.reset()
                told = False
            delay = backoff.next_delay()
            # The first time it is news, then it is only noise.
            text = f"relay {url}: {why}; trying again in {delay:.0f} s"
            self._report(Notice("debug" if told else "warning", text))
            told = True
            await asyncio.sleep(delay)

    async def _converse(self, url: str) -> str:
        """One connection, to its end; returns why it ended."""
        assert self._http is not None
        proxy = environment_proxy("http" + url.removeprefix("ws"))
        async with asyncio.timeout(CONNECT_TIMEOUT) as limit:
            async with self._http.ws_connect(
                url,
                heartbeat=HEARTBEAT,
                max_msg_size=MAX_MESSAGE,
                proxy=proxy.url if proxy else None,
                proxy_headers=proxy.headers if proxy else None,
            ) as socket:
                limit.reschedule(None)
                connected = _Connected(self, url, socket)
                self._sockets[url] = connected
                try:
                    return await connected.run()
                finally:
                    del self._sockets[url]
                    if not self.connected:
                        self._subscribed.clear()

    # What connections call

    @property
    def filter(self) -> dict[str, object]:
        return self._filter

    def sign_auth(self, url: str, challenge: str) -> Event:
        return self._sign_auth(url, challenge)

    def recent(self) -> list[Event]:
        """Events that a relay which has just connected should get too."""
        now = self._loop.time()
        return [v.event for v in self._recent.values() if now - v.at <= RECENT]

    def subscribed(self, url: str) -> None:
        self._report(Notice("info", f"relay {url}: connected"))
        self._subscribed.set()

    def arrived(self, event: Event) -> None:
        """Only an event that is the same to the last bit counts as seen: a forged copy with
        another content or signature must not hide the true one."""
        key = (event.id, event.sig)
        if key in self._seen or not has_true_id(event):
            return
        self._seen[key] = None
        if len(self._seen) > MAX_SEEN:
            self._seen.popitem(last=False)
        self._on_event(event)

    def judged(self, url: str, verdict: Published) -> None:
        verdicts = self._recent.get(verdict.event_id)
        if verdicts is None:
            return
        if verdict.accepted:
            verdicts.accepted += 1
            self._report(Notice("debug", f"relay {url}: took our event"))
            return
        verdicts.refusals += 1
        verdicts.reason = verdict.reason
        # The same refusal of each repeated request is no news.
        level = "debug" if self._refusals.get(url) == verdict.reason else "warning"
        self._refusals[url] = verdict.reason
        self._report(Notice(level, f"relay {url} refuses our event: {verdict.reason}"))

    def notice(self, url: str, text: str) -> None:
        self._report(Notice("debug", f"relay {url}: {text}"))

    def _failed(self, name: str, error: Exception) -> None:
        self._report(Notice("warning", f"internal error in {name}: {error!r}"))


class _Connected:
    """One WebSocket and the session on it."""

    def __init__(
        self, owner: NostrRelays, url: str, socket: aiohttp.ClientWebSocketResponse
    ) -> None:
        self.subscribed = False
        self._owner = owner
        self._url = url
        self._socket = socket
        self._session = RelaySession(owner.filter, lambda c: owner.sign_auth(url, c))
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def publish(self, event: Event) -> None:
        self._session.publish(event)
        self._wake.set()

    async def run(self) -> str:
        self._session.opened()
        for event in self._owner.recent():
            self._session.publish(event)
        self._wake.set()
        async with TaskScope(f"relay {self._url}", on_failure=_ignore) as scope:
            sending = scope.spawn(self._send(), "send")
            receiving = scope.spawn(self._receive(), "receive")
            await asyncio.wait({sending, receiving}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
            return receiving.result() if receiving.done() else "the connection broke"

    async def _receive(self) -> str:
        async for message in self._socket:
            if message.type is aiohttp.WSMsgType.TEXT:
                self._session.received(message.data, self._loop.time())
                self._take_events()
                self._wake.set()
            elif message.type is aiohttp.WSMsgType.ERROR:
                return _why(message.data)
        return f"it closed the connection ({_close_reason(self._socket)})"

    async def _send(self) -> None:
        while True:
            for text in self._session.outgoing():
                await self._socket.send_str(text)
            due = self._session.get_timer()
            self._wake.clear()
            try:
                async with asyncio.timeout_at(due):
                    await self._wake.wait()
            except TimeoutError:
                self._session.handle_timer(self._loop.time())

    def _take_events(self) -> None:
        while (event := self._session.next_event()) is not None:
            match event:
                case Arrived():
                    self._owner.arrived(event.event)
                case Published():
                    self._owner.judged(self._url, event)
                case Subscribed():
                    self.subscribed = True
                    self._owner.subscribed(self._url)
                case SubscriptionClosed():
                    self.subscribed = False
                    self._owner.notice(self._url, f"closed our subscription: {event.reason}")
                case RelayNotice():
                    self._owner.notice(self._url, event.text)


def _close_reason(socket: aiohttp.ClientWebSocketResponse) -> str:
    return f"code {socket.close_code}" if socket.close_code else "without a reason"


def _why(error: Any) -> str:
    """Why a relay is not reached, in a few words."""
    if isinstance(error, TimeoutError):
        return "no answer"
    if isinstance(error, aiohttp.WSServerHandshakeError):
        return f"is no Nostr relay (HTTP status {error.status})"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "its certificate is not trusted"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its name is not known"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return type(error).__name__


def _ignore(name: str, error: Exception) -> None:
    """`run` looks at both tasks itself."""
