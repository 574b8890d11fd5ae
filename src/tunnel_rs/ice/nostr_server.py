"""Nostr mode, server side: give sessions to the one client that is configured.

The server is the controlling side of ICE here, and begins right after its offer: the client's
answer is a courtesy nobody waits for (spec `ice.md` section 1.1).
"""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass

from tunnel_rs.errors import TargetError, TunnelError
from tunnel_rs.ice.manual import checked_source, serve_link
from tunnel_rs.ice.nostr_client import RELAY_PATIENCE, wall_clock
from tunnel_rs.ice.session import IceSession
from tunnel_rs.ice.settings import NostrSettings, Service, SessionSettings
from tunnel_rs.net.nostr import NostrRelays
from tunnel_rs.net.resolver import Resolve
from tunnel_rs.net.tasks import ScopeFullError, TaskScope
from tunnel_rs.proto.ice_messages import IceMessage, Offer, Reject, encode
from tunnel_rs.proto.nostr_events import Conversation, Event, EventType
from tunnel_rs.proto.nostr_flow import Asked, Repeated, ServerFlow, Stale
from tunnel_rs.reports import Notice, Reporter, ServerReady
from tunnel_rs.values import EndpointId

MAX_TASKS = 1000
"""Sessions when the limit is 0."""

STALE_NOTICE = 60.0
"""Seconds between two warnings about requests that are too old."""


@dataclass(slots=True)
class _Offered:
    """What was answered to a session that is still being set up."""

    offer: Offer
    encrypted: bool


class NostrServer:
    """`run` until cancelled."""

    def __init__(
        self,
        settings: SessionSettings,
        nostr: NostrSettings,
        service: Service,
        report: Reporter,
        resolve: Resolve,
        *,
        wall: Callable[[], int] = wall_clock,
    ) -> None:
        self._settings = settings
        self._nostr = nostr
        self._service = service
        self._report = report
        self._resolve = resolve
        self._wall = wall
        self._loop = asyncio.get_running_loop()
        self._conversation = Conversation(nostr.key, nostr.peer, os.urandom, nostr.kind)
        self._flow = ServerFlow(nostr.encryption)
        self._offered: dict[str, _Offered] = {}
        self._sessions = TaskScope("sessions", on_failure=self._failed, limit=MAX_TASKS)
        self.max_sessions = nostr.max_sessions
        """May be changed at any time; sessions that there are go on."""
        self._active = 0
        self._stale_told_at = -STALE_NOTICE
        self._relays = NostrRelays(
            nostr.relays,
            self._conversation.filter,
            lambda url, challenge: self._conversation.auth_event(url, challenge, wall()),
            self._heard,
            report,
        )

    async def run(self) -> None:
        """Listen on the relays and serve sessions."""
        async with self._relays, self._sessions:
            while not await self._relays.wait_subscribed(RELAY_PATIENCE):
                pass  # each relay's trouble is reported where it happens
            ours = EndpointId(self._nostr.key.public_key.key)
            self._report(ServerReady(ours, (), self._relays.connected))
            await asyncio.Event().wait()

    def _heard(self, event: Event) -> None:
        signal = self._conversation.understand(event)
        if signal is None:
            return
        match self._flow.heard(signal, self._loop.time(), self._wall()):
            case Asked() as asked:
                self._begin(asked)
            case Repeated(session_id) if session_id in self._offered:
                offered = self._offered[session_id]
                self._say(EventType.OFFER, offered.offer, offered.encrypted)
            case Stale(age):
                self._tell_stale(age)

    def _begin(self, asked: Asked) -> None:
        limit = self.max_sessions
        if limit and self._active >= limit:
            self._reject(asked, f"Server at capacity ({self._active}/{limit} sessions)")
            return
        try:
            self._sessions.spawn(self._session(asked), asked.request.session_id[:8])
        except ScopeFullError:
            self._reject(asked, f"Server at capacity ({MAX_TASKS}/{MAX_TASKS} sessions)")

    def _reject(self, asked: Asked, reason: str) -> None:
        request = asked.request
        self._report(Notice("warning", f"session {request.session_id[:8]}: declined: {reason}"))
        self._say(EventType.REJECT, Reject(request.session_id, reason), asked.encrypted)

    def _say(self, type: EventType, message: IceMessage, encrypted: bool) -> None:
        body = encode(message)
        self._relays.publish(
            self._conversation.event(type, body, self._wall(), encrypted=encrypted)
        )

    async def _session(self, asked: Asked) -> None:
        self._active += 1
        try:
            await self._serve(asked)
        except TargetError as error:
            self._reject(asked, f"Source '{asked.request.source or ''}': {error}")
        except TunnelError as error:
            text = f"session {asked.request.session_id[:8]}: {error}"
            self._report(Notice("warning", text))
        finally:
            self._active -= 1

    async def _serve(self, asked: Asked) -> None:
        request = asked.request
        source = await checked_source(self._service, request.source, request.streams)
        session = IceSession(self._settings, self._report, self._resolve, controlling=True)
        try:
            offer = Offer(
                await session.gather(),
                fingerprint=session.certificate.fingerprint,
                session_id=request.session_id,
                streams=request.streams,
            )
            self._offered[request.session_id] = _Offered(offer, asked.encrypted)
            self._say(EventType.OFFER, offer, asked.encrypted)
            try:
                link = await session.accept(
                    request.ice,
                    client=request.client_fingerprint,
                    peer=EndpointId(self._nostr.peer.key),
                    fixed_source=None if request.streams else source,
                )
            finally:
                del self._offered[request.session_id]
            await serve_link(self._service, link)
        finally:
            await session.close()

    def _tell_stale(self, age: int) -> None:
        now = self._loop.time()
        if now - self._stale_told_at >= STALE_NOTICE:
            self._stale_told_at = now
            text = f"ignored a request that is {age} s old; if that repeats, check both clocks"
            self._report(Notice("warning", text))

    def _failed(self, name: str, error: Exception) -> None:
        self._report(Notice("warning", f"internal error in {name}: {error!r}"))
