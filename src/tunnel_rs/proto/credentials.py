"""What an end shows in the TLS handshake and how it judges the other end: the engine's only
difference between raw public keys (`raw_keys`) and self-signed certificates (`certificates`)."""

from collections.abc import Callable
from typing import Protocol

from aioquic import tls
from aioquic.quic.configuration import QuicConfiguration

from tunnel_rs.values import EndpointId


class Credentials(Protocol):
    """Our half of the authentication; one object serves all connections of an endpoint."""

    @property
    def endpoint_id(self) -> EndpointId:
        """The 32 bytes a peer knows us by."""

    @property
    def reset_key(self) -> bytes:
        """Secret bytes that stateless reset tokens are derived from."""

    def sign(self, message: bytes) -> bytes:
        """A signature of `message` by our key, of the key's own kind."""

    def configure(self, configuration: QuicConfiguration, *, peer: EndpointId | None) -> None:
        """Fill in certificate, key and server name. `peer` is who is dialled; None on a server."""

    def install(
        self,
        context: tls.Context,
        *,
        is_client: bool,
        accept_peer: Callable[[EndpointId], bool],
    ) -> None:
        """Prepare a fresh TLS context. `accept_peer` judges what the peer claims to be; a peer it
        does not accept must not complete the handshake."""

    def check_client_offer(self, context: tls.Context) -> None:
        """On a server, after ClientHello: raise a TLS alert unless the client fits."""

    def proven_peer(self, context: tls.Context) -> EndpointId | None:
        """Who the peer is, once the handshake is complete; None when it is not good enough."""
