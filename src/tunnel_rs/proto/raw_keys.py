"""RFC 7250 raw Ed25519 public keys on aioquic's TLS 1.3, both ways, as iroh 1.x does.

What a certificate would be is the DER SubjectPublicKeyInfo of the key (RFC 8410 section 4). Both
sides must show one; the peer's identity is the key whose CertificateVerify checked out, nothing
that is written in a message.
"""

import base64
from collections.abc import Callable

from aioquic import tls
from aioquic._buffer import Buffer
from aioquic.quic.configuration import QuicConfiguration
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding

from tunnel_rs.values import EndpointId, Secret

_SPKI_PREFIX = bytes.fromhex("302a300506032b6570032100")
_RAW_PUBLIC_KEY = 2  # RFC 7250 section 3, CertificateType
_CLIENT_CERTIFICATE_TYPE = 19
_SERVER_CERTIFICATE_TYPE = 20


class RawPublicKey:
    """Stands where aioquic's TLS expects an X.509 certificate."""

    __slots__ = ("_key", "endpoint_id")

    def __init__(self, endpoint_id: EndpointId) -> None:
        self.endpoint_id = endpoint_id
        self._key = ed25519.Ed25519PublicKey.from_public_bytes(endpoint_id.key)

    def public_bytes(self, encoding: Encoding) -> bytes:
        """The SubjectPublicKeyInfo; aioquic asks for DER only."""
        assert encoding is Encoding.DER
        return _SPKI_PREFIX + self.endpoint_id.key

    def public_key(self) -> ed25519.Ed25519PublicKey:
        return self._key


class Identity:
    """Our key pair, in the forms that TLS needs. These are `credentials.Credentials`."""

    __slots__ = ("certificate", "endpoint_id", "private_key")

    def __init__(self, seed: Secret[bytes]) -> None:
        self.private_key = ed25519.Ed25519PrivateKey.from_private_bytes(seed.reveal())
        self.endpoint_id = EndpointId(self.private_key.public_key().public_bytes_raw())
        self.certificate = RawPublicKey(self.endpoint_id)

    def __repr__(self) -> str:
        return f"Identity({self.endpoint_id})"

    @property
    def reset_key(self) -> bytes:
        return self.private_key.private_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        """Ed25519 (RFC 8032)."""
        return self.private_key.sign(message)

    def configure(self, configuration: QuicConfiguration, *, peer: EndpointId | None) -> None:
        configuration.certificate = self.certificate
        configuration.private_key = self.private_key
        if peer is not None:
            configuration.server_name = server_name(peer)

    def install(
        self,
        context: tls.Context,
        *,
        is_client: bool,
        accept_peer: Callable[[EndpointId], bool],
    ) -> None:
        install_raw_keys(context, self, is_client=is_client, accept_peer=accept_peer)

    def check_client_offer(self, context: tls.Context) -> None:
        check_client_offer(context)

    def proven_peer(self, context: tls.Context) -> EndpointId | None:
        return proven_peer(context)


def server_name(peer: EndpointId) -> str:
    """The SNI an iroh client sends; servers do not look at it."""
    return base64.b32hexencode(peer.key).decode().rstrip("=").lower() + ".iroh.invalid"


def decode_raw_public_key(der: bytes) -> EndpointId:
    """Read an Ed25519 SubjectPublicKeyInfo. Raises ValueError."""
    if len(der) != len(_SPKI_PREFIX) + 32 or not der.startswith(_SPKI_PREFIX):
        raise ValueError("not an Ed25519 public key")
    return EndpointId(der[len(_SPKI_PREFIX) :])


def _offers_raw_keys(extensions: list[tuple[int, bytes]], extension_type: int) -> bool:
    for kind, value in extensions:
        if kind == extension_type:
            buffer = Buffer(data=value)
            count = buffer.pull_uint8()
            return _RAW_PUBLIC_KEY in buffer.pull_bytes(count)
    return False


def check_client_offer(context: tls.Context) -> None:
    """On a server, after ClientHello: refuse a client that does not do raw keys both ways."""
    extensions = context.received_extensions
    try:
        offered = extensions is not None and all(
            _offers_raw_keys(extensions, kind)
            for kind in (_CLIENT_CERTIFICATE_TYPE, _SERVER_CERTIFICATE_TYPE)
        )
    except ValueError as exc:
        raise tls.AlertDecodeError("Malformed certificate type extension") from exc
    if not offered:
        raise tls.AlertUnsupportedCertificate("Raw public keys are required")


def install_raw_keys(
    context: tls.Context,
    identity: Identity,
    *,
    is_client: bool,
    accept_peer: Callable[[EndpointId], bool],
) -> None:
    """Make `context` show `identity`, ask for the peer's raw key and judge it by `accept_peer`.

    `accept_peer` is called with the key the peer claims, before the proof is checked; returning
    False ends the handshake with bad_certificate.
    """

    def set_peer_certificate(message: tls.Certificate) -> None:
        try:
            [(der, _)] = message.certificates
            claimed = decode_raw_public_key(der)
        except ValueError as exc:
            raise tls.AlertBadCertificate("Not one Ed25519 raw public key") from exc
        if not accept_peer(claimed):
            raise tls.AlertBadCertificate("Not the peer asked for")
        context._peer_certificate = RawPublicKey(claimed)  # type: ignore[assignment]

    context.certificate = identity.certificate  # type: ignore[assignment]
    context.certificate_chain = []
    context.certificate_private_key = identity.private_key
    context._signature_algorithms = [tls.SignatureAlgorithm.ED25519]
    context._supported_groups = [tls.Group.X25519]
    context._request_client_certificate = True
    context._set_peer_certificate = set_peer_certificate  # type: ignore[method-assign, assignment]
    value = bytes([1, _RAW_PUBLIC_KEY]) if is_client else bytes([_RAW_PUBLIC_KEY])
    context.handshake_extensions = [
        *context.handshake_extensions,
        (_CLIENT_CERTIFICATE_TYPE, value),
        (_SERVER_CERTIFICATE_TYPE, value),
    ]


def proven_peer(context: tls.Context) -> EndpointId | None:
    """The peer's key once the handshake is complete; None when it showed none."""
    certificate = context._peer_certificate
    return certificate.endpoint_id if isinstance(certificate, RawPublicKey) else None
