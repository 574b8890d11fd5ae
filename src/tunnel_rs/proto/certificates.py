"""Fresh self-signed certificates that are known by their SHA-256 (spec `ice.md` section 1.6).

Names and dates in them mean nothing. Who the peer is follows from the fingerprint that signalling
carried; that it has the key is proved by CertificateVerify, which aioquic checks always.
"""

import datetime
import hashlib
from collections.abc import Callable

from aioquic import tls
from aioquic.quic.configuration import QuicConfiguration
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from tunnel_rs.values import EndpointId

SERVER_NAME = "manual"
"""The SNI that clients send; it does not match the certificate, and nobody compares."""

_CERTIFICATE_NAME = "manual.tunnel"
_MAX_CERTIFICATE = 16_384
_BEGINNING = datetime.datetime(1975, 1, 1, tzinfo=datetime.UTC)
_END = datetime.datetime(4096, 1, 1, tzinfo=datetime.UTC)
_HEX_DIGITS = frozenset("0123456789abcdef")


class Certificate:
    """A key pair (ECDSA P-256) and a self-signed certificate for it."""

    __slots__ = ("certificate", "fingerprint", "private_key")

    def __init__(self) -> None:
        """Makes a new key. Its randomness is the cryptography library's."""
        self.private_key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _CERTIFICATE_NAME)])
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self.private_key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(_BEGINNING)
            .not_valid_after(_END)
            .add_extension(
                x509.SubjectAlternativeName([x509.DNSName(_CERTIFICATE_NAME)]), critical=False
            )
            .sign(self.private_key, hashes.SHA256())
        )
        self.fingerprint = fingerprint_of(self.certificate.public_bytes(Encoding.DER))

    def __repr__(self) -> str:
        return f"Certificate({self.fingerprint})"


def fingerprint_of(der: bytes) -> EndpointId:
    """SHA-256 of a certificate in DER form; its text form is 64 lower-case hex digits."""
    return EndpointId(hashlib.sha256(der).digest())


def parse_fingerprint(text: str) -> EndpointId:
    """Read 64 hex digits in either case. Raises ValueError."""
    digits = text.lower()
    if len(digits) != 64 or not _HEX_DIGITS.issuperset(digits):
        raise ValueError("a fingerprint has 64 hex digits")
    return EndpointId(bytes.fromhex(digits))


class CertificateCredentials:
    """A certificate as `credentials.Credentials`.

    The dialling side accepts the server's fingerprint only. The accepting side asks the client for
    a certificate when `client` names one, and then accepts no other; a client without one (the
    original's) goes by `anonymous`.
    """

    def __init__(
        self,
        certificate: Certificate,
        *,
        client: EndpointId | None = None,
        anonymous: EndpointId | None = None,
    ) -> None:
        self._certificate = certificate
        self._client = client
        self._anonymous = anonymous

    @property
    def endpoint_id(self) -> EndpointId:
        return self._certificate.fingerprint

    @property
    def reset_key(self) -> bytes:
        number = self._certificate.private_key.private_numbers().private_value
        return number.to_bytes(32, "big")

    def sign(self, message: bytes) -> bytes:
        """ECDSA on P-256 with SHA-256."""
        return self._certificate.private_key.sign(message, ec.ECDSA(hashes.SHA256()))

    def configure(self, configuration: QuicConfiguration, *, peer: EndpointId | None) -> None:
        configuration.certificate = self._certificate.certificate
        configuration.private_key = self._certificate.private_key
        if peer is not None:
            configuration.server_name = SERVER_NAME

    def install(
        self,
        context: tls.Context,
        *,
        is_client: bool,
        accept_peer: Callable[[EndpointId], bool],
    ) -> None:
        def set_peer_certificate(message: tls.Certificate) -> None:
            der = message.certificates[0][0]
            shown = fingerprint_of(der)
            wanted = accept_peer(shown) and (is_client or shown == self._client)
            if len(der) > _MAX_CERTIFICATE or not wanted:
                raise tls.AlertBadCertificate("Not the certificate that was announced")
            try:
                context._peer_certificate = x509.load_der_x509_certificate(der)
            except ValueError as exc:
                raise tls.AlertBadCertificate("Not a certificate") from exc

        context._set_peer_certificate = set_peer_certificate  # type: ignore[method-assign, assignment]
        context._request_client_certificate = not is_client and self._client is not None

    def check_client_offer(self, context: tls.Context) -> None:
        """Nothing is asked of a client before its certificate."""

    def proven_peer(self, context: tls.Context) -> EndpointId | None:
        certificate = context._peer_certificate
        if certificate is not None:
            return fingerprint_of(certificate.public_bytes(Encoding.DER))
        return None if self._client is not None else self._anonymous
