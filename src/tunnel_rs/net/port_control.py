"""A port of the router's by PCP, or by NAT-PMP where the router speaks that. For IPv6, where ports
are not mapped, PCP lets strangers in through the router's firewall."""

import asyncio
import os
import socket
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from typing import TypeVar

from tunnel_rs.errors import ProtocolError, TargetError, UnreachableError
from tunnel_rs.net.datagrams import Batch, DatagramSocket, connect_udp
from tunnel_rs.net.gateway import address_towards
from tunnel_rs.proto.port_mapping import (
    NONCE_SIZE,
    PORT,
    RETRY_WAITS,
    Lease,
    MappingRequest,
    OtherVersionError,
    decode_address,
    decode_nat_pmp,
    decode_pcp,
    encode_address_question,
)
from tunnel_rs.values import SocketAddr

T = TypeVar("T")


class PortControl:
    """One mapping: `obtain` it, `obtain` it again to renew it, `release` it."""

    name = "PCP or NAT-PMP"

    def __init__(
        self,
        gateway: IPv4Address | IPv6Address,
        port: int,
        *,
        router_port: int = PORT,
        pcp: bool = True,
        source: IPv6Address | None = None,
    ) -> None:
        """`port`: our UDP port that is to be reached. `router_port`: where the router is asked.
        Without `pcp` only NAT-PMP is spoken. `source`: which of our addresses of IPv6, with a
        `gateway` of IPv6; then only PCP is spoken."""
        self._gateway = str(gateway)
        self._router_port = router_port
        self._source = None if source is None else str(source)
        ip = self._source or _towards(gateway)
        self._request = MappingRequest(SocketAddr(ip, port), os.urandom(NONCE_SIZE))
        self._speaks_pcp = pcp

    async def obtain(self, wanted: int) -> Lease:
        """A port, if possible `wanted`. Raises UnreachableError without an answer, ProtocolError
        when the router refuses or speaks something else."""
        self._request = replace(self._request, wanted=wanted)
        if self._speaks_pcp:
            try:
                return await self._ask(
                    self._request.pcp(), lambda answer: decode_pcp(answer, self._request)
                )
            except OtherVersionError:
                if self._source is not None:
                    raise
                self._speaks_pcp = False
        external = await self._ask(encode_address_question(), decode_address)
        return await self._ask(
            self._request.nat_pmp(),
            lambda answer: decode_nat_pmp(answer, self._request, external),
        )

    async def release(self) -> None:
        """Take the mapping back. A router that refuses is asked for the shortest lease instead:
        miniupnpd forgets whose a pinhole is when it renews it, but renews it for anybody. Raises as
        `obtain`."""
        if not self._speaks_pcp:
            request = replace(self._request, lifetime=0)
            await self._ask(request.nat_pmp(), lambda answer: decode_nat_pmp(answer, request, None))
            return
        try:
            await self._lease_for(0)
        except ProtocolError:
            await self._lease_for(1)

    async def _lease_for(self, seconds: int) -> None:
        request = replace(self._request, lifetime=seconds)
        await self._ask(request.pcp(), lambda answer: decode_pcp(answer, request))

    async def close(self) -> None:
        """There is nothing to close."""

    def _connect(self) -> socket.socket:
        return connect_udp([self._gateway], self._router_port, self._source)

    async def _ask(self, question: bytes, read: Callable[[bytes], T | None]) -> T:
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def received(batch: Batch) -> None:
            for message, _ in batch:
                if answer.done():
                    return
                try:
                    found = read(message)
                except Exception as error:
                    answer.set_exception(error)
                else:
                    if found is not None:
                        answer.set_result(found)

        # Connected, so that only the router's answers come in.
        try:
            sock = DatagramSocket(self._connect(), received)
        except TargetError as error:
            raise UnreachableError(f"router {self._gateway}: {error}") from None
        try:
            for wait in RETRY_WAITS:
                sock.send(question)
                try:
                    async with asyncio.timeout(wait):
                        return await asyncio.shield(answer)
                except TimeoutError:
                    continue
        finally:
            sock.close()
            if answer.done() and not answer.cancelled():
                answer.exception()
            answer.cancel()
        raise UnreachableError(f"router {self._gateway}: no answer by {self.name}")


def _towards(gateway: IPv4Address | IPv6Address) -> str:
    found = address_towards(gateway) if isinstance(gateway, IPv4Address) else None
    return found or "0.0.0.0"
