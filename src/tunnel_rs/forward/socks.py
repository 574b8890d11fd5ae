"""A local SOCKS5 proxy: every CONNECT and UDP ASSOCIATE is a source request.

Host names are passed on to the server as they are; nothing is looked up here.
"""

import asyncio
import socket
from collections import defaultdict
from contextlib import closing
from functools import partial

from tunnel_rs.errors import ProtocolError, TargetError, TunnelError
from tunnel_rs.forward.flow_table import FlowTable
from tunnel_rs.forward.local_tcp import ClientParts, join_source
from tunnel_rs.net.bind import bind, local_address
from tunnel_rs.net.datagrams import Address, Batch, DatagramSocket
from tunnel_rs.net.resolver import literal
from tunnel_rs.net.tasks import ScopeFullError
from tunnel_rs.net.tcp import TcpListener, listen, reset
from tunnel_rs.proto.socks5 import (
    ConnectRequest,
    Reply,
    Socks5Negotiation,
    UdpAssociate,
    decode_udp_request,
    encode_udp_reply,
)
from tunnel_rs.reports import Listening, Notice
from tunnel_rs.values import HostPort, Protocol, SocketAddr, SourceUrl

NEGOTIATION_TIMEOUT = 10.0
"""Seconds a SOCKS client has to say what it wants."""

_GOODBYE_PATIENCE = 1.0
"""Seconds a client that got a negative reply has to close first, so that it can read it."""

_UNKNOWN = SocketAddr("0.0.0.0", 0)
"""Told as the bound address of a CONNECT: the real one is the server's secret."""


async def listen_socks(parts: ClientParts, where: HostPort) -> TcpListener:
    """Offer SOCKS5 on `where`. Raises LocalError."""

    def accepted(sock: socket.socket) -> None:
        try:
            parts.tasks.spawn(_SocksClient(parts, sock).serve(), "socks")
        except ScopeFullError:
            reset(sock)

    listener = await listen(where, accepted, parts.resolve)
    for address in listener.addresses:
        parts.report(Listening(address, None))
    return listener


class _SocksClient:
    """One connection to the proxy."""

    def __init__(self, parts: ClientParts, sock: socket.socket) -> None:
        self._parts = parts
        self._socket = sock
        self._negotiation = Socks5Negotiation()
        self._handed_over = False  # to a session, which closes the socket
        self._loop = asyncio.get_running_loop()

    async def serve(self) -> None:
        try:
            request = await self._hear_out()
            if isinstance(request, ConnectRequest):
                await self._connect(request)
            else:
                await self._associate()
        except (TimeoutError, OSError):
            pass  # it went away, or never said what it wants
        except ProtocolError as error:
            self._parts.report(Notice("warning", str(error)))
            await self._say_goodbye()
        except TunnelError:
            await self._say_goodbye()
        finally:
            if not self._handed_over:
                self._socket.close()

    async def _hear_out(self) -> ConnectRequest | UdpAssociate:
        """Negotiate up to the request. Raises ProtocolError, TimeoutError, OSError."""
        async with asyncio.timeout(NEGOTIATION_TIMEOUT):
            while True:
                data = await self._loop.sock_recv(self._socket, 4096)
                if not data:
                    raise ConnectionResetError
                request = self._negotiation.feed(data)
                if request is not None:
                    return request
                await self._flush()

    async def _connect(self, request: ConnectRequest) -> None:
        await self._flush()
        source = SourceUrl(Protocol.TCP, request.address)
        try:
            dialogue = await self._parts.uplink.request(source)
        except TunnelError as error:
            self._parts.refused(source, error)
            self._negotiation.fail(_reply_for(error))
            raise
        try:
            self._negotiation.succeed(_UNKNOWN)
            await self._flush()
        except BaseException:
            dialogue.abandon()
            raise
        if rest := self._negotiation.take_rest():
            dialogue.stream.write(rest)
        self._handed_over = True
        await join_source(self._parts, self._socket, dialogue, source)

    async def _associate(self) -> None:
        """Relay datagrams for as long as the connection stays open (RFC 1928 section 7)."""
        await self._flush()
        here = HostPort(_ip(self._socket.getsockname()), 0)
        try:
            (sock,) = await bind(here, socket.SOCK_DGRAM, self._parts.resolve)
        except TunnelError:
            self._negotiation.fail(Reply.GENERAL_FAILURE)
            raise
        with closing(_Association(self._parts, sock, _ip(self._socket.getpeername()))) as relay:
            self._negotiation.succeed(relay.address)
            await self._flush()
            while await self._loop.sock_recv(self._socket, 4096):
                pass

    async def _flush(self) -> None:
        if data := self._negotiation.data_to_send():
            await self._loop.sock_sendall(self._socket, data)

    async def _say_goodbye(self) -> None:
        """Send what is left to say, and close so that the client can still read it."""
        try:
            async with asyncio.timeout(_GOODBYE_PATIENCE):
                await self._flush()
                self._socket.shutdown(socket.SHUT_WR)
                while await self._loop.sock_recv(self._socket, 4096):
                    pass
        except (TimeoutError, OSError):
            pass


class _Association:
    """The UDP relay of one SOCKS client. Only datagrams from the client's address count."""

    def __init__(self, parts: ClientParts, sock: socket.socket, client_ip: str) -> None:
        self.address = local_address(sock)
        self._client_ip = client_ip
        self._flows = FlowTable(parts, parts.settings.max_flows)
        self._socket = DatagramSocket(sock, self._received)

    def close(self) -> None:
        self._flows.close()
        self._socket.close()

    def _received(self, batch: Batch) -> None:
        by_flow: defaultdict[tuple[Address, HostPort], list[bytes]] = defaultdict(list)
        for datagram, address in batch:
            if _ip(address) != self._client_ip:
                continue
            try:
                host, port, payload = decode_udp_request(datagram)
            except ProtocolError:
                continue
            by_flow[address, HostPort(host, port)].append(payload)
        for (address, target), payloads in by_flow.items():
            deliver = partial(self._reply, address, target)
            source = SourceUrl(Protocol.UDP, target)
            self._flows.send((address, target), source, payloads, deliver)

    def _reply(self, address: Address, target: HostPort, payload: bytes) -> None:
        self._socket.send(encode_udp_reply(target, payload), address)


def _ip(address: Address) -> str:
    """The IP of a socket address; IPv4 as such also on an IPv6 socket."""
    return literal(address[0]) or address[0]


def _reply_for(error: TunnelError) -> Reply:
    """The server's answer has words but no code, so only its origin can be told."""
    if isinstance(error, TargetError):
        return Reply.GENERAL_FAILURE
    return Reply.NETWORK_UNREACHABLE
