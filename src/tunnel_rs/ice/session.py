"""One session: from gathering candidates to a link, and its end.

Roles are fixed by the mode; the server of the tunnel is always the server of QUIC (spec `ice.md`
section 1.1). `gather`, exchange messages, then `dial` or `accept`; `close` whatever happened.
"""

import asyncio
import hashlib
from dataclasses import replace

from tunnel_rs.errors import TunnelError, UnreachableError, WrongPeerError
from tunnel_rs.ice.link import IceLink
from tunnel_rs.ice.settings import SessionSettings
from tunnel_rs.net.ice_agent import IceAgent
from tunnel_rs.net.quic import QuicEndpoint
from tunnel_rs.net.quic_connection import QuicConnection
from tunnel_rs.net.resolver import Resolve
from tunnel_rs.proto.certificates import Certificate, CertificateCredentials
from tunnel_rs.proto.ice_messages import IceParameters
from tunnel_rs.proto.transport_settings import TransportSettings
from tunnel_rs.reports import Notice, Reporter
from tunnel_rs.values import EndpointId, SourceUrl

KEEP_ALIVE = 3.0
SILENCE = 6.0
"""Seconds: a path that has died is noticed within the sum of both, whatever else is configured."""


class IceSession:
    """Make one for each exchange of messages; nothing of it is used twice."""

    def __init__(
        self, settings: SessionSettings, report: Reporter, resolve: Resolve, *, controlling: bool
    ) -> None:
        self.certificate = Certificate()
        self._settings = settings
        self._report = report
        self._resolve = resolve
        self._agent = IceAgent(controlling=controlling, report=report)
        self._endpoint: QuicEndpoint | None = None

    async def gather(self) -> IceParameters:
        """What the peer has to be told about our side of ICE. Raises LocalError."""
        settings = self._settings
        await self._agent.gather(settings.servers, self._resolve, settings.hosts)
        return self._agent.parameters

    async def dial(
        self,
        remote: IceParameters,
        server: EndpointId,
        fixed_source: SourceUrl | None,
        *,
        peer: EndpointId | None = None,
    ) -> IceLink:
        """Client side: meet the peer, which must show the certificate with the fingerprint
        `server`; `peer` is what to call it by. Raises UnreachableError, WrongPeerError."""
        endpoint = self._open(CertificateCredentials(self.certificate), accept=False)
        path = await self._agent.connect(remote, timeout=self._settings.connect_timeout)
        self._report(Notice("debug", f"ICE has chosen {self._agent.face.describe(path)}"))
        connection = endpoint.dial(server, [path], _alive(self._settings.transport))
        await self._handshake(connection)
        return IceLink(connection, self._agent, peer or server, fixed_source)

    async def accept(
        self,
        remote: IceParameters,
        *,
        client: EndpointId | None,
        peer: EndpointId | None = None,
        fixed_source: SourceUrl | None,
        timeout: float | None = None,
    ) -> IceLink:
        """Server side: meet the peer and take its connection. `client` is the fingerprint its
        certificate must have, None for the original, which has none; `peer` what to call it by.
        `timeout` in seconds replaces `connect_timeout`. Raises UnreachableError."""
        name = peer or client or _name_of(remote)
        credentials = CertificateCredentials(self.certificate, client=client, anonymous=name)
        endpoint = self._open(credentials, accept=True)
        limit = self._settings.connect_timeout if timeout is None else timeout
        path = await self._agent.connect(remote, timeout=limit)
        self._report(Notice("debug", f"ICE has chosen {self._agent.face.describe(path)}"))
        patience = self._settings.handshake_timeout
        try:
            async with asyncio.timeout(patience):
                connection = await endpoint.accept()
        except TimeoutError:
            raise UnreachableError(
                f"ICE found a path, but the client began no QUIC connection in {patience:g} s"
            ) from None
        return IceLink(connection, self._agent, name, fixed_source)

    async def close(self) -> None:
        """End the connection and free all sockets. Idempotent."""
        if self._endpoint is not None:
            self._endpoint.close(0, "done")
        await self._agent.close()

    def _open(self, credentials: CertificateCredentials, *, accept: bool) -> QuicEndpoint:
        """The endpoint exists before ICE is done: the peer may be done, and speak, earlier."""
        settings = _alive(self._settings.transport)
        self._endpoint = QuicEndpoint(credentials, settings, accept=accept, alpn=None)
        self._endpoint.add_face(self._agent.face)
        self._agent.face.deliver_to(self._endpoint)
        return self._endpoint

    async def _handshake(self, connection: QuicConnection) -> None:
        patience = self._settings.handshake_timeout
        try:
            async with asyncio.timeout(patience):
                await asyncio.shield(connection.handshaken)
        except TimeoutError:
            raise UnreachableError(
                f"ICE found a path, but the server did not answer on it in {patience:g} s"
            ) from None
        except WrongPeerError as error:
            raise WrongPeerError(
                f"the server's certificate is not the one it announced ({error}): the connection "
                "was refused; somebody may be in between"
            ) from None
        except TunnelError as error:
            raise UnreachableError(f"the QUIC handshake failed: {error}") from None


def _alive(transport: TransportSettings) -> TransportSettings:
    return replace(
        transport,
        keep_alive=min(KEEP_ALIVE, transport.keep_alive),
        silence_timeout=SILENCE,
        handshake_timeout=30.0,
    )


def _name_of(remote: IceParameters) -> EndpointId:
    """A name for a client that has no key of its own."""
    return EndpointId(hashlib.sha256(b"ice client " + remote.ufrag.encode()).digest())
