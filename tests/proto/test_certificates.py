from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from tunnel_rs.proto.certificates import (
    SERVER_NAME,
    Certificate,
    CertificateCredentials,
    fingerprint_of,
    parse_fingerprint,
)
from tunnel_rs.proto.engine import Engine, ResetTokens
from tunnel_rs.proto.transport_settings import TransportSettings
from tunnel_rs.values import EndpointId

SERVER, CLIENT, STRANGER = Certificate(), Certificate(), Certificate()
NOBODY = EndpointId(bytes(32))
TOKENS = ResetTokens(bytes(32))
SETTINGS = TransportSettings()


def handshake(
    client: CertificateCredentials, server: CertificateCredentials, wanted: EndpointId
) -> tuple[Engine, Engine]:
    """Both ends after as many packets as they want to exchange."""
    now = 1.0
    one = Engine.client(
        SETTINGS, client, TOKENS, peer=wanted, alpn=None, candidates=["server"], now=now
    )
    first = bytes(one.trains(now)[0][0])
    other = Engine.server(
        SETTINGS,
        server,
        TOKENS,
        alpn=None,
        original_destination_connection_id=first[6 : 6 + first[5]],
    )
    other.receive(memoryview(first), 1200, "client", now)
    for _ in range(10):
        now += 0.01
        for source, target, name in ((other, one, "server"), (one, other, "client")):
            for data, size, _to in source.trains(now):
                target.receive(memoryview(bytes(data)), size, name, now)
    return one, other


def test_it_is_a_self_signed_p256_certificate_of_the_original_s_name() -> None:
    certificate = SERVER.certificate
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["manual.tunnel"]
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == "secp256r1"
    certificate.verify_directly_issued_by(certificate)
    assert SERVER_NAME == "manual"


def test_each_certificate_is_fresh() -> None:
    assert len({SERVER.fingerprint, CLIENT.fingerprint, STRANGER.fingerprint}) == 3


def test_a_client_without_a_certificate_goes_by_the_given_name() -> None:
    one, other = handshake(
        CertificateCredentials(CLIENT),
        CertificateCredentials(SERVER, anonymous=NOBODY),
        SERVER.fingerprint,
    )
    assert one.peer == SERVER.fingerprint
    assert other.peer == NOBODY


def test_the_announced_client_certificate_is_asked_for_and_proved() -> None:
    one, other = handshake(
        CertificateCredentials(CLIENT),
        CertificateCredentials(SERVER, client=CLIENT.fingerprint, anonymous=NOBODY),
        SERVER.fingerprint,
    )
    assert (one.peer, other.peer) == (SERVER.fingerprint, CLIENT.fingerprint)


def test_another_server_certificate_ends_the_handshake() -> None:
    one, _other = handshake(
        CertificateCredentials(CLIENT),
        CertificateCredentials(STRANGER, anonymous=NOBODY),
        SERVER.fingerprint,
    )
    assert one.peer is None and one.ending is not None
    assert one.refused_peer == STRANGER.fingerprint


def test_another_client_certificate_ends_the_handshake() -> None:
    _one, other = handshake(
        CertificateCredentials(STRANGER),
        CertificateCredentials(SERVER, client=CLIENT.fingerprint, anonymous=NOBODY),
        SERVER.fingerprint,
    )
    assert other.peer is None and other.ending is not None


class NoCertificate(CertificateCredentials):
    """A client that answers a request for its certificate with none."""

    def configure(self, configuration: Any, *, peer: EndpointId | None) -> None:
        configuration.server_name = SERVER_NAME


def test_a_missing_client_certificate_ends_the_handshake() -> None:
    _one, other = handshake(
        NoCertificate(CLIENT),
        CertificateCredentials(SERVER, client=CLIENT.fingerprint, anonymous=NOBODY),
        SERVER.fingerprint,
    )
    assert other.peer is None and other.ending is not None


def test_a_fingerprint_is_64_hex_digits_of_either_case() -> None:
    text = str(SERVER.fingerprint)
    assert parse_fingerprint(text.upper()) == SERVER.fingerprint
    for wrong in ("", text[1:], "g" * 64):
        with pytest.raises(ValueError, match="64 hex digits"):
            parse_fingerprint(wrong)
    assert fingerprint_of(b"") == parse_fingerprint(
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    )


def test_a_signature_is_by_the_certificate_s_key() -> None:
    signature = CertificateCredentials(SERVER).sign(b"x")
    key = SERVER.certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    key.verify(signature, b"x", ec.ECDSA(hashes.SHA256()))


def test_the_reset_key_is_secret_and_stays_the_same() -> None:
    keys = [CertificateCredentials(c).reset_key for c in (SERVER, SERVER, CLIENT)]
    assert keys[0] == keys[1] != keys[2] and len(keys[0]) == 32
