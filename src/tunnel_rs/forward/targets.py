"""Server side of a source request: from what the client named to an open socket.

The name is resolved once, each address is judged, and only the allowed ones are dialled, in the
very form that was judged: a name that changes between two look-ups gains nothing.
"""

import socket
from dataclasses import dataclass

from tunnel_rs.errors import TargetError
from tunnel_rs.net.datagrams import connect_udp
from tunnel_rs.net.resolver import Resolve
from tunnel_rs.net.tcp import dial
from tunnel_rs.proto.policy import SourcePolicy
from tunnel_rs.values import Protocol, SourceUrl


def parse_source(text: str) -> SourceUrl:
    """What a client asks for. Raises TargetError."""
    try:
        return SourceUrl.parse(text)
    except ValueError as error:
        raise TargetError(f"not a source: {error}") from None


@dataclass(frozen=True, slots=True)
class Targets:
    """Opens what `policy` allows. `connect_timeout` is in seconds, over all addresses."""

    policy: SourcePolicy
    resolve: Resolve
    connect_timeout: float

    async def open(self, source: SourceUrl) -> socket.socket:
        """A connected non-blocking TCP or UDP socket. Raises TargetError with the reason."""
        ips = await self.allowed_addresses(source)
        if source.protocol is Protocol.TCP:
            return await dial(ips, source.address.port, timeout=self.connect_timeout)
        return connect_udp(ips, source.address.port)

    async def allowed_addresses(self, source: SourceUrl) -> list[str]:
        """The addresses of `source` that may be dialled, never none. Raises TargetError."""
        protocol = source.protocol
        if not self.policy.serves(protocol):
            raise TargetError(f"this server forwards no {protocol.upper()}")
        ips = await self.resolve(source.address.host)
        allowed = self.policy.permitted(protocol, ips)
        if not allowed:
            raise TargetError(f"{source} is not among the sources this server allows")
        return allowed
