"""Server side of a source request: from what the client named to an open socket.

The name is resolved once, each address is judged, and only the allowed ones are dialled, in the
very form that was judged: a name that changes between two look-ups gains nothing.
"""

import socket
from dataclasses import dataclass

from tunnel_rs.errors import TargetError
from tunnel_rs.net.bind import peer_address
from tunnel_rs.net.datagrams import connect_udp
from tunnel_rs.net.resolver import Resolve
from tunnel_rs.net.tcp import dial
from tunnel_rs.proto.grants import UNLIMITED, Grant
from tunnel_rs.proto.policy import SourcePolicy
from tunnel_rs.values import Protocol, SocketAddr, SourceUrl


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

    async def open(
        self, source: SourceUrl, grant: Grant = UNLIMITED
    ) -> tuple[socket.socket, SocketAddr]:
        """A connected non-blocking TCP or UDP socket, and where it leads. Raises TargetError with
        the reason."""
        ips = await self.allowed_addresses(source, grant)
        if source.protocol is Protocol.TCP:
            sock = await dial(ips, source.address.port, timeout=self.connect_timeout)
        else:
            sock = connect_udp(ips, source.address.port)
        try:
            return sock, peer_address(sock)
        except OSError:
            sock.close()
            raise TargetError(f"{source}: the connection was reset at once") from None

    def still_allow(self, protocol: Protocol, target: SocketAddr, grant: Grant) -> bool:
        """Whether an address that was dialled before would be dialled now."""
        permitted = self.policy.permitted(protocol, (target.ip,))
        return bool(grant.permitted(protocol, permitted, target.port))

    async def allowed_addresses(self, source: SourceUrl, grant: Grant = UNLIMITED) -> list[str]:
        """The addresses of `source` that may be dialled, never none. Raises TargetError."""
        protocol = source.protocol
        if not self.policy.serves(protocol) or grant.rules(protocol) == ():
            raise TargetError(f"this server forwards no {protocol.upper()}")
        ips = await self.resolve(source.address.host)
        permitted = self.policy.permitted(protocol, ips)
        allowed = grant.permitted(protocol, permitted, source.address.port)
        if not allowed:
            raise TargetError(f"{source} is not among the sources this server allows")
        return allowed
