"""A port of the router's by UPnP. The messages are `proto.upnp`.

Only the default gateway is believed: what another host of the network answers is not even looked
at. What it sends is bounded in size and time, and redirects are not followed.
"""

import asyncio
import random
import socket
from ipaddress import IPv4Address

import aiohttp

from tunnel_rs.errors import ProtocolError, UnreachableError
from tunnel_rs.net.datagrams import Batch, DatagramSocket
from tunnel_rs.net.gateway import address_towards
from tunnel_rs.proto import upnp
from tunnel_rs.proto.port_mapping import Lease, leads_outside
from tunnel_rs.proto.upnp import GROUP, LEASE, MAX_DOCUMENT, Mapping4, RefusedError, Service
from tunnel_rs.values import SocketAddr

SEARCH_WAITS = (1.0, 2.0)
"""Seconds to wait for an answer to each search; gateways answer within one."""

REQUEST_TIMEOUT = 4.0
"""Seconds for one request over HTTP."""

MAX_TRIES = 4
"""Ports tried when others have taken them."""

_TTL = 2


class UpnpPort:
    """One mapping: `obtain` it, `obtain` it again to renew it, `release` it; `close` at the end."""

    name = "UPnP"

    def __init__(self, gateway: IPv4Address, port: int) -> None:
        """`port`: our UDP port that is to be reached."""
        self._gateway = str(gateway)
        self._source = address_towards(gateway) or ""
        self._port = port
        self._service: Service | None = None
        self._external_port = 0
        self._session: aiohttp.ClientSession | None = None

    async def obtain(self, wanted: int) -> Lease:
        """A port, if possible `wanted`. Raises UnreachableError without an answer, ProtocolError
        when the router refuses."""
        service = self._service or await self._find()
        external = upnp.granted_address(await self._do(service, upnp.external_address(service)))
        if not leads_outside(external):
            raise ProtocolError("the router's external address is not one of the internet")
        port = await self._add(service, wanted or self._port)
        self._service, self._external_port = service, port
        return Lease(SocketAddr(str(external), port), LEASE, 0)

    async def _add(self, service: Service, port: int) -> int:
        lease = LEASE
        for _ in range(MAX_TRIES):
            wanted = Mapping4(SocketAddr(self._source, self._port), port, lease)
            try:
                answer = await self._do(service, upnp.add_mapping(service, wanted))
                return upnp.granted_port(answer, port)
            except RefusedError as error:
                if error.code == upnp.PERMANENT_ONLY and lease:
                    lease = 0
                elif error.code in upnp.CONFLICTS:
                    port = random.randrange(1024, 65_536)
                else:
                    raise
        raise ProtocolError("the router refused a port (UPnP): all that were tried are taken")

    async def release(self) -> None:
        """Take the mapping back. Raises as `obtain`."""
        if self._service is not None and self._external_port:
            action = upnp.delete_mapping(self._service, self._external_port)
            upnp.check(await self._do(self._service, action))
            self._external_port = 0

    async def close(self) -> None:
        """Idempotent."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    # Finding the gateway

    async def _find(self) -> Service:
        url = await self._search()
        found = upnp.services(await self._fetch("GET", url), url, self._gateway)
        if not found:
            raise ProtocolError(f"router {self._gateway} has no connection service (UPnP)")
        return found[0]

    async def _search(self) -> str:
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def received(batch: Batch) -> None:
            for message, source in batch:
                url = upnp.description_url(message, self._gateway)
                if url is not None and source[0] == self._gateway and not answer.done():
                    answer.set_result(url)

        sock = DatagramSocket(_multicast_socket(self._source), received)
        try:
            for wait in SEARCH_WAITS:
                for version in (2, 1):
                    sock.send(upnp.search(version), (GROUP.ip, GROUP.port))
                try:
                    async with asyncio.timeout(wait):
                        return await asyncio.shield(answer)
                except TimeoutError:
                    continue
        finally:
            sock.close()
            answer.cancel()
        raise UnreachableError(f"router {self._gateway}: no answer by UPnP")

    # Requests

    async def _do(self, service: Service, action: upnp.Action) -> bytes:
        return await self._fetch("POST", service.url, action)

    async def _fetch(self, method: str, url: str, action: upnp.Action | None = None) -> bytes:
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT)
            self._session = aiohttp.ClientSession(timeout=timeout, trust_env=False)
        headers, body = (action.headers, action.body) if action else ({}, None)
        try:
            async with self._session.request(
                method, url, headers=headers, data=body, allow_redirects=False
            ) as response:
                # A refusal comes with the status 500 and says why.
                if response.status not in (200, 500):
                    raise ProtocolError(f"router {self._gateway}: HTTP {response.status} (UPnP)")
                return await _read(response.content)
        except (aiohttp.ClientError, OSError) as error:
            raise UnreachableError(f"router {self._gateway}: {error} (UPnP)") from None
        except TimeoutError:
            raise UnreachableError(f"router {self._gateway}: too slow (UPnP)") from None


async def _read(content: aiohttp.StreamReader) -> bytes:
    document = bytearray()
    async for chunk in content.iter_any():
        document += chunk
        if len(document) > MAX_DOCUMENT:
            raise ProtocolError("the router's answer (UPnP) is too long")
    return bytes(document)


def _multicast_socket(source: str) -> socket.socket:
    """Sends to groups on the interface of `source`. Raises UnreachableError."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, _TTL)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(source))
        sock.bind((source, 0))
    except OSError as error:
        sock.close()
        raise UnreachableError(f"no search by UPnP: {error}") from None
    return sock
