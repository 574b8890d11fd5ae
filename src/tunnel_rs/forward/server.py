"""The forwarding server: authenticates links and connects their streams to allowed targets."""

import asyncio
import socket
from collections.abc import Callable
from functools import partial

from tunnel_rs.errors import (
    LinkClosedError,
    ProtocolError,
    StreamResetError,
    TargetError,
)
from tunnel_rs.forward.accounts import Account, Accounts, Client
from tunnel_rs.forward.dialogue import AUTH_FAILED, DONE, Dialogue
from tunnel_rs.forward.gate import AuthGate
from tunnel_rs.forward.plain import accept_plain
from tunnel_rs.forward.sessions import Session, Sessions
from tunnel_rs.forward.settings import ServerSettings
from tunnel_rs.forward.targets import Targets, parse_source
from tunnel_rs.forward.udp_flow import join_udp
from tunnel_rs.net.admission import RefusedError
from tunnel_rs.net.clock import wall_clock
from tunnel_rs.net.expiry import Expiry
from tunnel_rs.net.link import ByteStream, Link
from tunnel_rs.net.resolver import Resolve, SystemResolver
from tunnel_rs.net.splice import join_tcp
from tunnel_rs.net.tasks import ScopeFullError, TaskScope
from tunnel_rs.net.throttle import ThrottledStream
from tunnel_rs.proto.access import Pass
from tunnel_rs.proto.auth import FailurePenalties
from tunnel_rs.proto.grants import UNLIMITED
from tunnel_rs.proto.messages import SourceRequest, SourceResponse, decode_source_request
from tunnel_rs.proto.policy import SourcePolicy
from tunnel_rs.reports import (
    ClientAuthenticated,
    ClientGone,
    ClientRefused,
    Notice,
    PeerStatus,
    Penalties,
    Reporter,
    SessionRefused,
    TunnelStatus,
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

    tunnels: tuple[TunnelStatus, ...] = ()
    """Listeners: a server has none."""

    packets = None
    """None are carried here."""

    def __init__(
        self,
        settings: ServerSettings,
        report: Reporter = silent,
        *,
        penalties: FailurePenalties | None = None,
        resolve: Resolve | None = None,
        wall: Callable[[], float] = wall_clock,
    ) -> None:
        self.sessions = Sessions(report, limit=settings.max_sessions)
        self._report = report
        self._resolve = resolve or SystemResolver()
        self._wall = wall
        self._gate = AuthGate(
            settings.access, timeout=settings.auth_timeout, penalties=penalties, wall=wall
        )
        self._accounts = Accounts()
        self._clients: dict[Link, Client] = {}
        self._links: set[Link] = set()
        self._no_links = asyncio.Event()
        self._closing = False
        self._use(settings)

    def apply(self, settings: ServerSettings) -> None:
        """Use other allow-lists, tokens and limits from now on. Who may no longer come in is sent
        away, and sessions to what may no longer be reached are ended; others go on."""
        self._use(settings)
        for client in list(self._clients.values()):
            self._renew(client)
        for session in self.sessions:
            if not self._still_allows(session):
                session.abort("its target is no longer allowed")

    def _use(self, settings: ServerSettings) -> None:
        self._settings = settings
        self.sessions.limit = settings.max_sessions
        self._gate.access = settings.access
        self._accounts.keep(settings.access)
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
            if authenticated:
                held = Pass(link.peer, UNLIMITED)
                client = Client(link, held, Account(UNLIMITED), by_transport=True)
            else:
                held = await self._gate.admit(link)
                client = Client(link, held, self._accounts.of(held))
            self._clients[link] = client
            self._renew(client)
            await self._serve_client(client)
        except RefusedError as refusal:
            self._report(ClientRefused(link.peer, link.address, str(refusal)))
        finally:
            link.close(DONE, "done")
            self._forget(link)

    def _forget(self, link: Link) -> None:
        client = self._clients.pop(link, None)
        if client is not None and client.expiry is not None:
            client.expiry.cancel()
        self._links.discard(link)
        if not self._links:
            self._no_links.set()

    def _renew(self, client: Client) -> None:
        """Judge somebody who is in by the present list, and again when the pass runs out."""
        if client.by_transport:
            return
        held = self._settings.access.renew(client.held, self._wall())
        if client.expiry is None:
            client.expiry = Expiry(self._wall, partial(self._renew, client))
        if held is None:
            self._dismiss(client, f"its {client.held.by} has expired or was taken away")
            return
        client.held = held
        client.account.apply(held.grant)
        client.expiry.watch(held.grant)

    def _dismiss(self, client: Client, reason: str) -> None:
        """End the link of somebody who may no longer come in."""
        self._part(client, reason)
        client.link.close(AUTH_FAILED, "auth_failed")

    def _part(self, client: Client, reason: str) -> None:
        """End the sessions of a client whose link we are about to close, so that the same reason is
        told of all of them."""
        client.dismissal = reason
        for session in self.sessions:
            if session.client is client:
                session.abort(reason)

    @property
    def peers(self) -> tuple[PeerStatus, ...]:
        """All who are in, with their sessions."""
        sessions: dict[Client, list[Session]] = {client: [] for client in self._clients.values()}
        for session in self.sessions:
            if session.client in sessions:
                sessions[session.client].append(session)
        return tuple(client.status(own) for client, own in sessions.items())

    @property
    def penalties(self) -> Penalties:
        """Who has to wait for answers after wrong tokens."""
        return self._gate.penalties

    @property
    def moved(self) -> dict[int, tuple[int, int]]:
        """Bytes sent and received by each link, by its number."""
        moved = {client: [client.sent, client.received] for client in self._clients.values()}
        self.sessions.add_to(moved)
        return {client.number: (sent, received) for client, (sent, received) in moved.items()}

    async def ping(self) -> dict[str, float]:
        """Seconds to each client and back, by its id; who leaves meanwhile is left out."""
        clients = list(self._clients.values())
        times = await asyncio.gather(*(c.link.ping() for c in clients), return_exceptions=True)
        pairs = zip(clients, times, strict=True)
        return {str(client.peer): time for client, time in pairs if isinstance(time, float)}

    def disconnect(self, peer: str, reason: str) -> int:
        """End the links of the clients whose id begins with `peer`; returns how many there were.
        They may come again, as long as their tokens hold."""
        found = [c for c in self._clients.values() if str(c.peer).startswith(peer)]
        for client in found:
            self._part(client, reason)
            client.link.close(DONE, reason)
        return len(found)

    def _still_allows(self, session: Session) -> bool:
        if session.client is None or session.target is None:
            return True
        grant = session.client.held.grant
        return self._targets.still_allow(session.source.protocol, session.target, grant)

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

    async def _serve_client(self, client: Client) -> None:
        link = client.link
        link.open_window()
        self._report(ClientAuthenticated(link.peer, link.address, client.name, client.held.by))
        name = f"client {link.peer.short}"
        async with TaskScope(name, on_failure=self._task_failed, limit=MAX_REQUESTS) as requests:
            try:
                while True:
                    self._begin(await link.accept_stream(), requests, client)
            except LinkClosedError as error:
                reason = client.dismissal or str(error)
        moved = self.moved.get(client.number, (client.sent, client.received))
        self._report(ClientGone(link.peer, reason, client.name, *moved, client.seconds))

    def _begin(self, stream: ByteStream, requests: TaskScope, client: Client) -> None:
        fixed = client.link.fixed_source
        dialogue = Dialogue(stream) if fixed is None else accept_plain(stream, fixed)
        try:
            requests.spawn(self._request(dialogue, client), f"stream {stream.stream_id}")
        except ScopeFullError:
            self._refuse(dialogue, client, "a stream", "too many unanswered requests")

    async def _request(self, dialogue: Dialogue, client: Client) -> None:
        """Answer one stream. What goes wrong here ends this stream only."""
        text = "a stream"
        try:
            request = await self._read_request(dialogue, client.link.fixed_source)
            text = request.source
            await self._connect(dialogue, parse_source(text), client, offered=request.datagrams)
        except (TargetError, ProtocolError) as error:
            self._refuse(dialogue, client, text, str(error))
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

    async def _connect(
        self, dialogue: Dialogue, source: SourceUrl, client: Client, *, offered: bool
    ) -> None:
        if self._closing:
            raise TargetError("the server is shutting down")
        session = self.sessions.take(source, client)
        if session is None:
            raise TargetError("Session limit reached")
        with session:
            sock, session.target = await self._targets.open(source, client.held.grant)
            if not self._still_allows(session):  # settings may have changed meanwhile
                sock.close()
                raise TargetError(f"{source} is not among the sources this server allows")
            # A bandwidth limit works by the stream's pressure, which datagrams do not feel.
            free = source.protocol is Protocol.UDP and client.account.limits is None
            beside = free and offered and dialogue.stream.max_datagram > 0
            dialogue.send(SourceResponse(True, datagrams=beside))
            session.opened()
            await self._join(sock, dialogue, session, beside=beside)

    async def _join(
        self, sock: socket.socket, dialogue: Dialogue, session: Session, *, beside: bool
    ) -> None:
        """Let bytes flow between a connected socket and a stream, or datagrams `beside` it. Owns
        both."""
        stream, attach = dialogue.stream, dialogue.hand_over
        if not beside and (limits := session.client and session.client.account.limits):
            stream = ThrottledStream(stream, attach, *limits)
            attach = stream.set_receiver
        if session.source.protocol is Protocol.TCP:
            session.carried_by(await join_tcp(sock, stream, attach, session.ended))
        else:
            flow = join_udp(sock, session.ended, idle_timeout=self._settings.udp_idle_timeout)
            session.carried_by(flow)
            flow.attach(stream, attach, beside=beside)

    def _refuse(self, dialogue: Dialogue, client: Client, source: str, reason: str) -> None:
        dialogue.finish(SourceResponse(False, reason))
        shown = "".join(c if c.isprintable() else "?" for c in source[:MAX_SHOWN])
        self._report(SessionRefused(shown, reason, client.peer, client.name))

    def _task_failed(self, name: str, error: Exception) -> None:
        # A fault of ours, not of the peer: one stream is lost, the others go on.
        self._report(Notice("warning", f"internal error in {name}: {error!r}"))
