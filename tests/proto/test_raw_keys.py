"""RFC 7250 raw public keys both ways: who proves what, and who is refused."""

import datetime

import pytest
from aioquic import tls
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import example, given
from hypothesis import strategies as st
from tests.proto.conftest import MakeNetwork
from tests.support.engines import CLIENT_IDENTITY, SERVER_IDENTITY, Network, Peer

from tunnel_rs.proto.engine import Engine
from tunnel_rs.proto.raw_keys import (
    Identity,
    RawPublicKey,
    decode_raw_public_key,
    proven_peer,
    server_name,
)
from tunnel_rs.values import EndpointId, Secret

STRANGER = Identity(Secret(bytes([9]) * 32))
CRYPTO_ERROR = 0x100
CERTIFICATE_TYPES = (19, 20)

# RFC 8410 section 10.1, and RFC 8032 section 7.1 test 1.
RFC_8410_SPKI = bytes.fromhex(
    "302a300506032b657003210019bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1"
)
RFC_8032_SEED = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
RFC_8032_KEY = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")


def test_the_public_key_info_of_the_rfc_is_read() -> None:
    key = decode_raw_public_key(RFC_8410_SPKI)
    assert key.key == RFC_8410_SPKI[12:]
    assert RawPublicKey(key).public_bytes(Encoding.DER) == RFC_8410_SPKI


def test_an_identity_is_the_key_of_its_seed() -> None:
    identity = Identity(Secret(RFC_8032_SEED))
    assert identity.endpoint_id.key == RFC_8032_KEY
    assert identity.certificate.public_key().public_bytes_raw() == RFC_8032_KEY


def test_our_key_info_is_what_the_cryptography_package_writes() -> None:
    key = CLIENT_IDENTITY.private_key.public_key()
    expected = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert CLIENT_IDENTITY.certificate.public_bytes(Encoding.DER) == expected


def test_an_identity_shows_no_secret() -> None:
    identity = Identity(Secret(RFC_8032_SEED))
    assert repr(identity) == f"Identity({RFC_8032_KEY.hex()})"


def test_the_server_name_is_the_id_in_extended_hex_base32() -> None:
    name = server_name(EndpointId(RFC_8032_KEY))
    assert name == "qtd9g0c2m45bflabvr9sip07787e2snjraj269df08d6hto7a4d0.iroh.invalid"


@given(st.binary(max_size=64))
@example(RFC_8410_SPKI[:-1])
@example(RFC_8410_SPKI + b"\0")
@example(b"\x31" + RFC_8410_SPKI[1:])
def test_anything_else_is_no_key(data: bytes) -> None:
    if len(data) == 44 and data.startswith(RFC_8410_SPKI[:12]):
        return
    with pytest.raises(ValueError, match="not an Ed25519 public key"):
        decode_raw_public_key(data)


def why(peer: Peer | None) -> tuple[int, str]:
    """Code and reason that one side ends with."""
    assert peer is not None and peer.engine.ending is not None
    return peer.engine.ending.error_code, peer.engine.ending.reason_phrase


def fail(network: Network, code: int, reason: str) -> None:
    """Run until both sides know the failure, and nobody believes in the other."""
    network.run(10)
    assert network.server is not None
    for peer in (network.client, network.server):
        assert why(peer) == (CRYPTO_ERROR + code, reason)
        assert peer.engine.peer is None
        assert peer.engine.is_terminated
        assert len(peer.event(ConnectionTerminated)) == 1


def context_of(engine: QuicConnection) -> tls.Context:
    return engine.tls


def test_both_sides_prove_their_keys(make_network: MakeNetwork) -> None:
    network = make_network()
    assert network.client.engine.peer is None
    client, server = network.connect()
    assert client.engine.peer == SERVER_IDENTITY.endpoint_id
    assert server.engine.peer == CLIENT_IDENTITY.endpoint_id
    assert client.engine.refused_peer is None


def test_a_client_refuses_a_server_with_another_key() -> None:
    network = Network(server_identity=STRANGER)
    fail(network, 42, "Not the peer asked for")
    assert network.client.engine.refused_peer == STRANGER.endpoint_id


def test_a_server_that_claims_a_key_it_does_not_have_is_refused() -> None:
    liar = Identity(Secret(bytes([9]) * 32))
    liar.certificate = SERVER_IDENTITY.certificate
    network = Network(server_identity=liar)
    network.run(10)
    assert why(network.client)[0] == CRYPTO_ERROR + tls.AlertDescription.decrypt_error
    assert network.client.engine.peer is None


def test_a_client_that_claims_a_key_it_does_not_have_is_refused() -> None:
    liar = Identity(Secret(bytes([9]) * 32))
    liar.certificate = CLIENT_IDENTITY.certificate
    network = Network(client_identity=liar)
    network.run(10)
    assert why(network.server)[0] == CRYPTO_ERROR + tls.AlertDescription.decrypt_error
    assert network.server is not None and network.server.engine.peer is None


def network_of_a_client_that_offers(extensions: list[tuple[int, bytes]]) -> Network:
    """The client's hello has `extensions` where ours have the certificate types."""

    class Client(Engine):
        def _initialize(self, peer_cid: bytes) -> None:
            super()._initialize(peer_cid)
            kept = [e for e in self.tls.handshake_extensions if e[0] not in CERTIFICATE_TYPES]
            self.tls.handshake_extensions = kept + extensions

    return Network(make_engine=Client, make_server=Engine)


def hide_client_key(network: Network) -> None:
    context = context_of(network.client.engine)
    context.certificate = context.certificate_private_key = None


def test_a_client_without_a_key_is_refused() -> None:
    network = Network()
    hide_client_key(network)
    network.run(10)
    assert why(network.server) == (
        CRYPTO_ERROR + tls.AlertDescription.certificate_required,
        "a raw public key is required",
    )
    assert why(network.client) == why(network.server)
    assert network.server is not None and network.server.engine.peer is None


def test_what_a_client_without_a_key_sends_never_reaches_the_application() -> None:
    network = Network()
    hide_client_key(network)
    network.run(10, lambda: network.client.engine._handshake_complete)
    stream = network.client.engine.open_stream()
    assert stream is not None
    network.client.engine.write(stream, b"let me in", True)
    network.run(10)
    assert network.server is not None and not network.server.received


def test_a_client_that_offers_x509_only_is_refused() -> None:
    network = network_of_a_client_that_offers([])
    fail(network, tls.AlertDescription.unsupported_certificate, "Raw public keys are required")


@pytest.mark.parametrize("kind", CERTIFICATE_TYPES)
def test_a_client_that_does_raw_keys_one_way_only_is_refused(kind: int) -> None:
    network = network_of_a_client_that_offers([(kind, bytes([1, 2]))])
    fail(network, tls.AlertDescription.unsupported_certificate, "Raw public keys are required")


@pytest.mark.parametrize("value", [b"", b"\x05\x02", b"\x01"])
def test_a_malformed_certificate_type_extension_is_a_decode_error(value: bytes) -> None:
    network = network_of_a_client_that_offers([(19, value), (20, bytes([1, 2]))])
    fail(network, tls.AlertDescription.decode_error, "Malformed certificate type extension")


@pytest.mark.parametrize("value", [bytes([2, 0, 2]), bytes([2, 2, 0]), bytes([3, 2, 5, 0])])
def test_raw_keys_among_other_certificate_types_are_enough(value: bytes) -> None:
    network = network_of_a_client_that_offers([(kind, value) for kind in CERTIFICATE_TYPES])
    network.connect()


def certificate() -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "server")])
    begin = datetime.datetime(2026, 1, 1)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name)
    builder = builder.public_key(key.public_key()).serial_number(1)
    builder = builder.not_valid_before(begin).not_valid_after(begin + datetime.timedelta(days=1))
    return builder.sign(key, hashes.SHA256()), key


def test_an_x509_certificate_is_not_taken_for_a_key() -> None:
    class Shown(RawPublicKey):
        def public_bytes(self, encoding: Encoding) -> bytes:
            return certificate()[0].public_bytes(encoding)

    identity = Identity(Secret(bytes([2]) * 32))
    identity.certificate = Shown(identity.endpoint_id)
    network = Network(server_identity=identity)
    fail(network, tls.AlertDescription.bad_certificate, "Not one Ed25519 raw public key")
    assert network.client.engine.refused_peer is None


def test_two_certificates_are_one_too_many() -> None:
    context = tls.Context(is_client=False)
    network = Network()
    engine = network.client.engine
    key = SERVER_IDENTITY.certificate.public_bytes(Encoding.DER)
    for chain in ([], [(key, b"")] * 2):
        with pytest.raises(tls.AlertBadCertificate):
            engine.tls._set_peer_certificate(tls.Certificate(certificates=chain))
    assert proven_peer(engine.tls) is None
    assert proven_peer(context) is None
