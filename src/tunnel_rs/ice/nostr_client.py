"""Nostr mode, client side: ask the server for a session over relays, meet it, and again when the
link is lost. The client is the controlled side of ICE here (spec `ice.md` section 1.1)."""

import asyncio
import os
import time
from collections.abc import Callable

from tunnel_rs.errors import PeerNotFoundError, ProtocolError, TargetError, UnreachableError
from tunnel_rs.ice.link import IceLink
from tunnel_rs.ice.manual import fixed_source
from tunnel_rs.ice.session import IceSession
from tunnel_rs.ice.settings import ClientRequest, NostrSettings, SessionSettings
from tunnel_rs.net.nostr import NostrRelays
from tunnel_rs.net.resolver import Resolve
from tunnel_rs.proto.ice_messages import (
    SESSION_ID_LENGTH,
    STREAMS,
    Answer,
    Offer,
    Reject,
    Request,
    encode,
)
from tunnel_rs.proto.nostr_events import Conversation, Event, EventType
from tunnel_rs.proto.nostr_flow import ClientFlow
from tunnel_rs.proto.signalling import Encryption
from tunnel_rs.reports import Notice, Reporter, Trying
from tunnel_rs.values import EndpointId

RELAY_PATIENCE = 10.0
"""Seconds a relay has to connect before the request is published regardless."""

_AT_CAPACITY = "Server at capacity"


def wall_clock() -> int:
    """Seconds since 1970."""
    return time.time_ns() // 1_000_000_000


class NostrClient:
    """`connect` as often as needed, one session at a time; `close` at the end."""

    def __init__(
        self,
        settings: SessionSettings,
        nostr: NostrSettings,
        request: ClientRequest,
        report: Reporter,
        resolve: Resolve,
        *,
        wall: Callable[[], int] = wall_clock,
    ) -> None:
        self._settings = settings
        self._nostr = nostr
        self._request = request
        self._report = report
        self._resolve = resolve
        self._wall = wall
        self._encryption = nostr.encryption
        self._conversation = Conversation(nostr.key, nostr.peer, os.urandom, nostr.kind)
        self._session: IceSession | None = None

    async def connect(self) -> IceLink:
        """Ask for a session and meet the server. Raises TunnelError: PeerNotFoundError when nobody
        answers, TargetError when the server declines."""
        await self.close()
        self._report(Trying("Nostr relays"))
        session = IceSession(self._settings, self._report, self._resolve, controlling=False)
        self._session = session
        try:
            return await self._introduce(session)
        except BaseException:
            await self.close()
            raise

    async def close(self, code: int = 0, reason: str = "done") -> None:
        """End the session. Idempotent."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _introduce(self, session: IceSession) -> IceLink:
        wanted = self._request
        request = Request(
            await session.gather(),
            session_id=os.urandom(SESSION_ID_LENGTH // 2).hex(),
            timestamp=self._wall(),
            source=str(wanted.source) if wanted.source else None,
            streams=STREAMS,
            client_fingerprint=session.certificate.fingerprint,
        )
        inbox: asyncio.Queue[Event] = asyncio.Queue(maxsize=256)
        relays = NostrRelays(
            self._nostr.relays,
            self._conversation.filter,
            lambda url, challenge: self._conversation.auth_event(url, challenge, self._wall()),
            lambda event: _put(inbox, event),
            self._report,
        )
        async with relays:
            await relays.wait_subscribed(RELAY_PATIENCE)
            offer, encrypted = await self._ask(relays, inbox, request)
            if offer.fingerprint is None:
                raise ProtocolError("the server's offer has no fingerprint; it could be anybody")
            fixed = fixed_source(offer.streams, wanted)
            answer = Answer(request.ice, session_id=request.session_id)
            relays.publish(
                self._conversation.event(
                    EventType.ANSWER, encode(answer), self._wall(), encrypted=encrypted
                )
            )
            server = offer.fingerprint
            peer = EndpointId(self._nostr.peer.key)
            return await session.dial(offer.ice, server, fixed, peer=peer)

    async def _ask(
        self, relays: NostrRelays, inbox: asyncio.Queue[Event], request: Request
    ) -> tuple[Offer, bool]:
        """Publish the request until it is answered. Whether it was answered in secret, too."""
        loop = asyncio.get_running_loop()
        flow = ClientFlow(
            request,
            self._encryption,
            interval=self._nostr.republish_interval,
            max_wait=self._nostr.max_wait,
            now=loop.time(),
        )
        self._report(Notice("info", "asking the server for a session..."))
        while not flow.is_over(loop.time()):
            wall = self._wall()
            for message in flow.due(loop.time(), wall):
                relays.publish(
                    self._conversation.event(
                        message.type, message.body, wall, encrypted=message.encrypted
                    )
                )
            try:
                async with asyncio.timeout_at(flow.get_timer()):
                    event = await inbox.get()
            except TimeoutError:
                continue
            signal = self._conversation.understand(event)
            answer = None if signal is None else flow.heard(signal)
            if signal is not None and answer is not None:
                return self._accepted(answer), self._remember(signal.encrypted)
        raise PeerNotFoundError(self._nobody(relays))

    def _accepted(self, answer: Offer | Reject) -> Offer:
        if isinstance(answer, Offer):
            return answer
        if answer.reason.startswith(_AT_CAPACITY):
            raise UnreachableError(f"the server takes no more sessions: {answer.reason}")
        raise TargetError(f"the server declines: {answer.reason or 'it gives no reason'}")

    def _remember(self, encrypted: bool) -> bool:
        """A server that can encrypt has no reason not to; a relay that drops events has."""
        if encrypted and self._encryption is Encryption.AUTO:
            self._encryption = Encryption.REQUIRED
        return encrypted

    def _nobody(self, relays: NostrRelays) -> str:
        waited = f"the server did not answer in {self._nostr.max_wait:g} s"
        if not relays.connected:
            return f"{waited}: no relay is connected ({', '.join(self._nostr.relays)})"
        advice = "is it running, on one of these relays, and does it know our npub?"
        if self._encryption is Encryption.REQUIRED:
            advice += " (signalling has to be encrypted; older programs cannot)"
        return f"{waited} on {', '.join(relays.connected)}; {advice}"


def _put(inbox: asyncio.Queue[Event], event: Event) -> None:
    if not inbox.full():  # a flood; what matters will be said again
        inbox.put_nowait(event)
