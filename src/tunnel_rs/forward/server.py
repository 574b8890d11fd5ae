"""The forwarding server: authenticates links and connects their streams to allowed targets."""

import asyncio

from tunnel_rs.errors import (
    LinkClosedError,
    ProtocolError,
    StreamResetError,
    TargetError,
)
from tunnel_rs.forward.dialogue import DONE, Dialogue
from tunnel_rs.forward.gate import AuthGate
from tunnel_rs.forward.plain import accept_plain
from tunnel_rs.forward.sessions import Sessions
from tunnel_rs.forward.settings import ServerSettings
from tunnel_rs.forward.targets import Targets, parse_source
from tunnel_rs.forward.udp_flow import join_udp
from tunnel_rs.net.admission import RefusedError
from tunnel_rs.net.link import ByteStream, Link
from tunnel_rs.net.resolver import Resolve, SystemResolver
from tunnel_rs.net.splice import join_tcp
from tunnel_rs.net.tasks import ScopeFullError, TaskScope
from tunnel_rs.proto.auth import FailurePenalties
from tunnel_rs.proto.messages import SourceRequest, SourceResponse, decode_source_request
from tunnel_rs.proto.policy import SourcePolicy
from tunnel_rs.reports import (
    ClientAuthenticated,
    ClientGone,
    ClientRefused,
    Notice,
    Reporter,
    SessionRefused,
    silent,
)
from tunnel_rs.values import Protocol, SourceUrl

REQUEST_TIMEOUT = 10.0
"""Seconds a new stream has to say what it wants."""

MAX_REQUESTS = 1024
"""Streams of one link that may be between opening and being connected; the limit on sessions is
kept free of those that never say what they want."""

MAX_SHOWN = 300
"""Characters of what a client asked for that are reported."""

DRAIN_TIMEOUT = 5.0


class ForwardServer:
    """Serves any number of links. `serve` is called for each link that was accepted."""

    def __init__(
        self,
        settings: ServerSettings,
        report: Reporter = silent,
        *,
        penalties: FailurePenalties | None = None,
        resolve: Resolve | None = None,
    ) -> None:
        self.sessions = Sessions(report, limit=settings.max_sessions)
        self._report = report
        self._resolve = resolve or SystemResolver()
        self._penalties = FailurePenalties() if penalties is None else penalties
        self._links: set[Link] = set()
        self._no_links = asyncio.Event()
        self._closing = False
        self.apply(settings)

    def apply(self, settings: ServerSettings) -> None:
        """Use other allow-lists, tokens and limits from now on. Open sessions are not touched."""
        self._settings = settings
        self.sessions.limit = settings.max_sessions
        self._gate = AuthGate(
            settings.tokens, timeout=settings.auth_timeout, penalties=self._penalties
        )
        self._targets = Targets(
            SourcePolicy(settings.allowed_tcp, settings.allowed_udp),
            self._resolve,
            settings.connect_timeout,
        )

    async def serve(self, link: Link, *, authenticated: bool = False) -> None:
        """Serve one accepted link until it ends, and close it. Nothing that its peer does raises;
        cancelling ends the link at once. With `authenticated` no token is asked for: the transport
        has proved who the peer is."""
        if self._closing:
            link.close(DONE, "done")
            return
        self._links.add(link)
        self._no_links.clear()
        try:
            if not authenticated:
                await self._gate.admit(link)
            await self._serve_client(link)
        except RefusedError as refusal:
            self._report(ClientRefused(link.peer, link.address, str(refusal)))
        finally:
            link.close(DONE, "done")
            self._links.discard(link)
            if not self._links:
                self._no_links.set()

    async def check(self, source: SourceUrl) -> None:
        """Raise TargetError unless `source` may be forwarded. A later request is judged anew."""
        await self._targets.allowed_addresses(source)

    async def close(self, timeout: float = DRAIN_TIMEOUT) -> None:
        """Take no new requests, let sessions end for at most `timeout` seconds, close all links
        with code 0 `done` and wait until every `serve` is about to return."""
        self._closing = True
        try:
            async with asyncio.timeout(timeout):
                await self.sessions.wait_empty()
                for link in list(self._links):
                    await link.drain()
        except TimeoutError:
            self._report(Notice("info", f"{len(self.sessions)} session(s) cut off"))
        self.sessions.abort_all("the server is shutting down")
        for link in list(self._links):
            link.close(DONE, "done")
        if self._links:
            await self._no_links.wait()

    async def _serve_client(self, link: Link) -> None:
        link.open_window()
        self._report(ClientAuthenticated(link.peer, link.address))
        name = f"client {link.peer.short}"
        async with TaskScope(name, on_failure=self._task_failed, limit=MAX_REQUESTS) as requests:
            try:
                while True:
                    self._begin(await link.accept_stream(), requests, link.fixed_source)
            except LinkClosedError as error:
                reason = str(error)
        self._report(ClientGone(link.peer, reason))

    def _begin(self, stream: ByteStream, requests: TaskScope, fixed: SourceUrl | None) -> None:
        dialogue = Dialogue(stream) if fixed is None else accept_plain(stream, fixed)
        try:
            requests.spawn(self._request(dialogue, fixed), f"stream {stream.stream_id}")
        except ScopeFullError:
            self._refuse(dialogue, "a stream", "too many unanswered requests")

    async def _request(self, dialogue: Dialogue, fixed: SourceUrl | None) -> None:
        """Answer one stream. What goes wrong here ends this stream only."""
        text = "a stream"
        try:
            request = await self._read_request(dialogue, fixed)
            text = request.source
            await self._connect(dialogue, parse_source(text), datagrams=request.datagrams)
        except (TargetError, ProtocolError) as error:
            self._refuse(dialogue, text, str(error))
        except (StreamResetError, LinkClosedError, OSError):
            dialogue.abandon()  # nobody waits for an answer, or it was already given
        except BaseException:
            dialogue.abandon()
            raise

    async def _read_request(self, dialogue: Dialogue, fixed: SourceUrl | None) -> SourceRequest:
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT):
                body = await dialogue.receive()
            return decode_source_request(body) if fixed is None else SourceRequest(str(fixed))
        except TimeoutError:
            raise ProtocolError(f"no source request in {REQUEST_TIMEOUT:g} s") from None

    async def _connect(self, dialogue: Dialogue, source: SourceUrl, *, datagrams: bool) -> None:
        if self._closing:
            raise TargetError("the server is shutting down")
        session = self.sessions.take(source)
        if session is None:
            raise TargetError("Session limit reached")
        with session:
            sock = await self._targets.open(source)
            udp = source.protocol is Protocol.UDP
            beside = udp and datagrams and dialogue.stream.max_datagram > 0
            dialogue.send(SourceResponse(True, datagrams=beside))
            session.opened()
            if not udp:
                splice = await join_tcp(sock, dialogue.stream, dialogue.hand_over, session.ended)
                session.abort = splice.abort
            else:
                flow = join_udp(sock, session.ended, idle_timeout=self._settings.udp_idle_timeout)
                session.abort = flow.abort
                flow.attach(dialogue.stream, dialogue.hand_over, beside=beside)

    def _refuse(self, dialogue: Dialogue, source: str, reason: str) -> None:
        dialogue.finish(SourceResponse(False, reason))
        shown = "".join(c if c.isprintable() else "?" for c in source[:MAX_SHOWN])
        self._report(SessionRefused(shown, reason))

    def _task_failed(self, name: str, error: Exception) -> None:
        # A fault of ours, not of the peer: one stream is lost, the others go on.
        self._report(Notice("warning", f"internal error in {name}: {error!r}"))
