"""Manual mode: people carry one offer to the server and one answer back (spec `ice.md` 1.1, 1.3).

One exchange makes one session. When it is lost nobody can signal a new one but the people.
"""

from typing import Protocol

from tunnel_rs.errors import (
    LinkClosedError,
    ProtocolError,
    TargetError,
    TunnelError,
    UnreachableError,
)
from tunnel_rs.ice.link import ICE_LOST, IceLink
from tunnel_rs.ice.session import IceSession
from tunnel_rs.ice.settings import ClientRequest, Service, SessionSettings
from tunnel_rs.net.resolver import Resolve
from tunnel_rs.proto.ice_messages import (
    STREAMS,
    Answer,
    Offer,
    decode_answer,
    decode_offer,
    encode,
)
from tunnel_rs.proto.manual_text import BlockKind
from tunnel_rs.reports import Notice, Reporter
from tunnel_rs.values import SourceUrl

PASTE_PATIENCE = 900.0
"""Seconds a server waits for the client: somebody has to carry the answer there first."""


_AGAIN = "start both sides again, and carry a new offer and answer"


class Exchange(Protocol):
    """The people, or files, that carry blocks from one side to the other."""

    def show(self, kind: BlockKind, body: bytes) -> None:
        """Give away our block. Raises LocalError."""

    async def read(self, kind: BlockKind) -> bytes:
        """Wait for the other side's block. Raises ProtocolError, LocalError."""


class ManualClient:
    """Client side. `connect` once; `close` at the end."""

    def __init__(
        self,
        settings: SessionSettings,
        request: ClientRequest,
        exchange: Exchange,
        report: Reporter,
        resolve: Resolve,
    ) -> None:
        self._request = request
        self._exchange = exchange
        self._report = report
        self._session = IceSession(settings, report, resolve, controlling=True)

    async def connect(self) -> IceLink:
        """Show the offer, wait for the answer, meet the server. Raises TunnelError."""
        session, request = self._session, self._request
        offer = Offer(
            await session.gather(),
            source=str(request.source) if request.source else None,
            streams=STREAMS,
            client_fingerprint=session.certificate.fingerprint,
        )
        self._exchange.show(BlockKind.OFFER, encode(offer))
        answer = decode_answer(await self._exchange.read(BlockKind.ANSWER))
        if answer.fingerprint is None:
            raise ProtocolError(
                "the answer has no QUIC fingerprint, so the server could be anybody; "
                "start both sides again"
            )
        fixed = fixed_source(answer.streams, request)
        self._report(Notice("info", "connecting to the server..."))
        return await session.dial(answer.ice, answer.fingerprint, fixed)

    async def close(self, code: int = 0, reason: str = "done") -> None:
        """End the session. Idempotent."""
        await self._session.close()


def fixed_source(streams: str | None, request: ClientRequest) -> SourceUrl | None:
    """The source that all streams lead to when the server does not hear requests; None when it
    does. Raises ProtocolError when what is asked for cannot be had then."""
    if streams is not None:
        return None
    if request.needs_requests or request.source is None:
        raise ProtocolError(
            "the server is an older program: it forwards one source, so neither several tunnels "
            "nor SOCKS5 can be had; give one --source and one --target"
        )
    return request.source


async def serve_manual(
    settings: SessionSettings,
    service: Service,
    exchange: Exchange,
    report: Reporter,
    resolve: Resolve,
    *,
    patience: float = PASTE_PATIENCE,
) -> None:
    """Server side: read the offer, check what it asks for, show the answer, and serve the client
    until it goes. Raises TunnelError."""
    offer = decode_offer(await exchange.read(BlockKind.OFFER))
    if offer.fingerprint is not None:
        raise ProtocolError("this is an answer; the server needs the offer that the client printed")
    source = await checked_source(service, offer.source, offer.streams)
    session = IceSession(settings, report, resolve, controlling=False)
    try:
        answer = Answer(
            await session.gather(),
            fingerprint=session.certificate.fingerprint,
            streams=offer.streams,
        )
        exchange.show(BlockKind.ANSWER, encode(answer))
        report(Notice("info", "waiting for the client to read the answer..."))
        link = await session.accept(
            offer.ice,
            client=offer.client_fingerprint,
            fixed_source=None if offer.streams else source,
            timeout=patience,
        )
        await serve_link(service, link)
    except LinkClosedError as error:
        raise lost(error) from None
    finally:
        await session.close()


async def checked_source(
    service: Service, text: str | None, streams: str | None
) -> SourceUrl | None:
    """The source a client asks for, if the server may forward it. None when there is none and
    each stream will name its own. Raises TargetError."""
    if text is None:
        if streams is None:
            raise TargetError("the client does not say what it wants to reach (no source)")
        return None
    try:
        source = SourceUrl.parse(text)
    except ValueError as error:
        raise TargetError(f"what the client asks for is not a source: {error}") from None
    await service.check(source)
    return source


async def serve_link(service: Service, link: IceLink) -> None:
    """Serve until the link ends. A client that goes in order is no error; a path that dies is."""
    await service.serve(link)
    ended = await link.wait_closed()
    if isinstance(ended, TunnelError) and not ended_in_order(ended):
        raise ended


def ended_in_order(error: TunnelError) -> bool:
    """Whether the end of a link is one that a program asked for, on either side."""
    if not isinstance(error, LinkClosedError):
        return False
    return error.by_application and error.reason != ICE_LOST


def lost(error: LinkClosedError) -> UnreachableError:
    """What the loss of a session means in manual mode, where nobody can signal a new one."""
    return UnreachableError(f"the connection is lost: {error}; {_AGAIN}")
