"""Identities, vectors and certificates for tests of relays."""

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tunnel_rs.proto.relay_handshake import RelayIdentity
from tunnel_rs.values import EndpointId

ID = bytes.fromhex("197f6b23e16c8532c6abc838facd5ea789be0c76b2920334039bfa8b3d368d61")
SEED = bytes([0x2A]) * 32
CHALLENGE = bytes(range(16))
DERIVED = bytes.fromhex("b7b16e505d2cb5dbaf494800092c3b05a6c45d8d3fd4f1b888c6a77240b876c0")
CLIENT_AUTH = bytes.fromhex(
    "01197f6b23e16c8532c6abc838facd5ea789be0c76b2920334039bfa8b3d368d6140a28b5ebc6a930b5d80ad5aca2a"
    "8e48ad4a064e699c0866674c8b8e61a5f4ea940ee8b9f06732930250ac0735555abe77e8df740165edc3163be432f0"
    "e4f3cf0f"
)


def key(number: int) -> Ed25519PrivateKey:
    """A private key, the same for the same number (0..255)."""
    return Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)


def identity(number: int) -> RelayIdentity:
    private = key(number)
    public = private.public_key().public_bytes_raw()
    return RelayIdentity(EndpointId(public), private.sign)


def write_certificate(directory: Path, name: str = "localhost") -> tuple[Path, Path]:
    """A self-signed certificate for `name` and 127.0.0.1, and its key, as PEM files."""
    chain, secret = directory / f"{name}.crt", directory / f"{name}.key"
    certificate, key = make_certificate(name)
    chain.write_bytes(certificate)
    secret.write_bytes(key)
    return chain, secret


def make_certificate(name: str = "localhost") -> tuple[bytes, bytes]:
    """The same as PEM text."""
    private = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    start = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    names = [x509.DNSName(name), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start.replace(year=2120))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(private, hashes.SHA256())
    )
    return (
        certificate.public_bytes(serialization.Encoding.PEM),
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )
