import hashlib
import os
from typing import Any

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from tunnel_rs.errors import LocalError
from tunnel_rs.proto import schnorr

FIELD = 2**256 - 2**32 - 977
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
BASE_X = bytes.fromhex("79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798")

secrets = st.integers(min_value=1, max_value=ORDER - 1).map(lambda number: number.to_bytes(32))
bytes_32 = st.binary(min_size=32, max_size=32)

VECTORS = [
    pytest.param(
        "0000000000000000000000000000000000000000000000000000000000000003",
        "f9308a019258c31049344f85f89d5229b531c845836f99b08601f113bce036f9",
        "00" * 32,
        "00" * 32,
        "e907831f80848d1069a5371b402410364bdf1c5f8307b0084c55f1ce2dca8215"
        "25f66a4a85ea8b71e482a74f382d2ce5ebeee8fdb2172f477df4900d310536c0",
        True,
        id="plain, 0",
    ),
    pytest.param(
        "b7e151628aed2a6abf7158809cf4f3c762e7160f38b4da56a784d9045190cfef",
        "dff1d77f2a671c5f36183726db2341be58feae1da2deced843240f7b502ba659",
        "0000000000000000000000000000000000000000000000000000000000000001",
        "243f6a8885a308d313198a2e03707344a4093822299f31d0082efa98ec4e6c89",
        "6896bd60eeae296db48a229ff71dfe071bde413e6d43f917dc8dcf8c78de3341"
        "8906d11ac976abccb20b091292bff4ea897efcb639ea871cfa95f6de339e4b0a",
        True,
        id="plain, 1",
    ),
    pytest.param(
        "c90fdaa22168c234c4c6628b80dc1cd129024e088a67cc74020bbea63b14e5c9",
        "dd308afec5777e13121fa72b9cc1b7cc0139715309b086c960e18fd969774eb8",
        "c87aa53824b4d7ae2eb035a2b5bbbccc080e76cdc6d1692c4b0b62d798e6d906",
        "7e2d58d8b3bcdf1abadec7829054f90dda9805aab56c77333024b9d0a508b75c",
        "5831aaeed7b44bb74e5eab94ba9d4294c49bcf2a60728d8b4c200f50dd313c1b"
        "ab745879a5ad954a72c45a91c3a51d3c7adea98d82f8481e0e1e03674a6f3fb7",
        True,
        id="plain, 2",
    ),
    pytest.param(
        "0b432b2677937381aef05bb02a66ecd012773062cf3fa2549e44f58ed2401710",
        "25d1dff95105f5253c4022f628a996ad3a0d95fbf21d468a1b33f8c160d8f517",
        "ff" * 32,
        "ff" * 32,
        "7eb0509757e246f19449885651611cb965ecc1a187dd51b64fda1edc9637d5ec"
        "97582b9cb13db3933705b32ba982af5af25fd78881ebb32771fc5922efc66ea3",
        True,
        id="message above p and n",
    ),
    pytest.param(
        "",
        "d69c3509bb99e412e68b0fe8544e72837dfa30746d8be2aa65975f29d22dc7b9",
        "",
        "4df3c3f68fcc83b27e9d42c90431a72499f17875c81a599b566c9889b9696703",
        "00000000000000000000003b78ce563f89a0ed9414f5aa28ad0d96d6795f9c63"
        "76afb1548af603b3eb45c9f8207dee1060cb71c04e80f593060b07d28308d7f4",
        True,
        id="r with leading zeros",
    ),
    pytest.param(
        "",
        "eefdea4cdb677750a420fee807eacf21eb9898ae79b9768766e4faa04a2d4a34",
        "",
        "243f6a8885a308d313198a2e03707344a4093822299f31d0082efa98ec4e6c89",
        "6cff5c3ba86c69ea4b7376f31a9bcb4f74c1976089b2d9963da2e5543e177769"
        "69e89b4c5564d00349106b8497785dd7d1d713a8ae82b32fa79d5f7fc407d39b",
        False,
        id="key not on the curve",
    ),
    pytest.param(
        "",
        "dff1d77f2a671c5f36183726db2341be58feae1da2deced843240f7b502ba659",
        "",
        "243f6a8885a308d313198a2e03707344a4093822299f31d0082efa98ec4e6c89",
        "fff97bd5755eeea420453a14355235d382f6472f8568a18b2f057a1460297556"
        "3cc27944640ac607cd107ae10923d9ef7a73c643e166be5ebeafa34b1ac553e2",
        False,
        id="y of R is odd",
    ),
    pytest.param(
        "",
        "dff1d77f2a671c5f36183726db2341be58feae1da2deced843240f7b502ba659",
        "",
        "243f6a8885a308d313198a2e03707344a4093822299f31d0082efa98ec4e6c89",
        "1fa62e331edbc21c394792d2ab1100a7b432b013df3f6ff4f99fcb33e0e1515f"
        "28890b3edb6e7189b630448b515ce4f8622a954cfe545735aaea5134fccdb2bd",
        False,
        id="negated message",
    ),
    pytest.param(
        "",
        "dff1d77f2a671c5f36183726db2341be58feae1da2deced843240f7b502ba659",
        "",
        "243f6a8885a308d313198a2e03707344a4093822299f31d0082efa98ec4e6c89",
        "6cff5c3ba86c69ea4b7376f31a9bcb4f74c1976089b2d9963da2e5543e177769"
        "961764b3aa9b2ffcb6ef947b6887a226e8d7c93e00c5ed0c1834ff0d0c2e6da6",
        False,
        id="negated s",
    ),
    pytest.param(
        "",
        "dff1d77f2a671c5f36183726db2341be58feae1da2deced843240f7b502ba659",
        "",
        "243f6a8885a308d313198a2e03707344a4093822299f31d0082efa98ec4e6c89",
        "0000000000000000000000000000000000000000000000000000000000000000"
        "123dda8328af9c23a94c1feecfd123ba4fb73476f0d594dcb65c6425bd186051",
        False,
        id="infinite, x 0",
    ),
    pytest.param(
        "",
        "dff1d77f2a671c5f36183726db2341be58feae1da2deced843240f7b502ba659",
        "",
        "243f6a8885a308d313198a2e03707344a4093822299f31d0082efa98ec4e6c89",
        "0000000000000000000000000000000000000000000000000000000000000001"
        "7615fbaf5ae28864013c099742deadb4dba87f11ac6754f93780d5a1837cf197",
        False,
        id="infinite, x 1",
    ),
    pytest.param(
        "",
        "dff1d77f2a671c5f36183726db2341be58feae1da2deced843240f7b502ba659",
        "",
        "243f6a8885a308d313198a2e03707344a4093822299f31d0082efa98ec4e6c89",
        "4a298dacae57395a15d0795ddbfd1dcb564da82b0f269bc70a74f8220429ba1d"
        "69e89b4c5564d00349106b8497785dd7d1d713a8ae82b32fa79d5f7fc407d39b",
        False,
        id="r not on the curve",
    ),
    pytest.param(
        "",
        "dff1d77f2a671c5f36183726db2341be58feae1da2deced843240f7b502ba659",
        "",
        "243f6a8885a308d313198a2e03707344a4093822299f31d0082efa98ec4e6c89",
        "fffffffffffffffffffffffffffffffffffffffffffffffffffffffefffffc2f"
        "69e89b4c5564d00349106b8497785dd7d1d713a8ae82b32fa79d5f7fc407d39b",
        False,
        id="r is the field size",
    ),
    pytest.param(
        "",
        "dff1d77f2a671c5f36183726db2341be58feae1da2deced843240f7b502ba659",
        "",
        "243f6a8885a308d313198a2e03707344a4093822299f31d0082efa98ec4e6c89",
        "6cff5c3ba86c69ea4b7376f31a9bcb4f74c1976089b2d9963da2e5543e177769"
        "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141",
        False,
        id="s is the order",
    ),
    pytest.param(
        "",
        "fffffffffffffffffffffffffffffffffffffffffffffffffffffffefffffc30",
        "",
        "243f6a8885a308d313198a2e03707344a4093822299f31d0082efa98ec4e6c89",
        "6cff5c3ba86c69ea4b7376f31a9bcb4f74c1976089b2d9963da2e5543e177769"
        "69e89b4c5564d00349106b8497785dd7d1d713a8ae82b32fa79d5f7fc407d39b",
        False,
        id="key exceeds the field",
    ),
    pytest.param(
        "0340034003400340034003400340034003400340034003400340034003400340",
        "778caa53b4393ac467774d09497a87224bf9fab6f6e68b23086497324d6fd117",
        "00" * 32,
        "",
        "71535db165ecd9fbbc046e5ffaea61186bb6ad436732fccc25291a55895464cf"
        "6069ce26bf03466228f19a3a62db8a649f2d560fac652827d1af0574e427ab63",
        True,
        id="empty message",
    ),
    pytest.param(
        "0340034003400340034003400340034003400340034003400340034003400340",
        "778caa53b4393ac467774d09497a87224bf9fab6f6e68b23086497324d6fd117",
        "00" * 32,
        "11",
        "08a20a0afef64124649232e0693c583ab1b9934ae63b4c3511f3ae1134c6a303"
        "ea3173bfea6683bd101fa5aa5dbc1996fe7cacfc5a577d33ec14564cec2bacbf",
        True,
        id="message of 1 byte",
    ),
    pytest.param(
        "0340034003400340034003400340034003400340034003400340034003400340",
        "778caa53b4393ac467774d09497a87224bf9fab6f6e68b23086497324d6fd117",
        "00" * 32,
        "0102030405060708090a0b0c0d0e0f1011",
        "5130f39a4059b43bc7cac09a19ece52b5d8699d1a71e3c52da9afdb6b50ac370"
        "c4a482b77bf960f8681540e25b6771ece1e5a37fd80e5a51897c5566a97ea5a5",
        True,
        id="message of 17 bytes",
    ),
    pytest.param(
        "0340034003400340034003400340034003400340034003400340034003400340",
        "778caa53b4393ac467774d09497a87224bf9fab6f6e68b23086497324d6fd117",
        "00" * 32,
        "99" * 100,
        "403b12b0d8555a344175ea7ec746566303321e5dbfa8be6f091635163eca79a8"
        "585ed3e3170807e7c03b720fc54c7b23897fcba0e9d0b4a06894cfd249f22367",
        True,
        id="message of 100 bytes",
    ),
]
"""All of bip-0340/test-vectors.csv: secret, key, randomness, message, signature, verdict."""


@pytest.mark.parametrize(("secret", "key", "fresh", "message", "signature", "good"), VECTORS)
def test_the_vectors_of_bip_340(
    secret: str, key: str, fresh: str, message: str, signature: str, good: bool
) -> None:
    said = bytes.fromhex(message)
    assert schnorr.verify(bytes.fromhex(key), said, bytes.fromhex(signature)) is good
    if secret:
        assert schnorr.public_key(bytes.fromhex(secret)).hex() == key
        signed = schnorr.sign(bytes.fromhex(secret), said, bytes.fromhex(fresh))
        assert signed.hex() == signature


@given(secrets, st.binary(max_size=100), bytes_32)
def test_what_is_signed_verifies(secret: bytes, message: bytes, fresh: bytes) -> None:
    signature = schnorr.sign(secret, message, fresh)
    assert schnorr.verify(schnorr.public_key(secret), message, signature)


@given(st.integers(min_value=0, max_value=32 * 8 + 64 * 8 - 1))
def test_one_wrong_bit_anywhere_is_noticed(bit: int) -> None:
    secret = bytes(31) + b"\7"
    key, message = schnorr.public_key(secret), b"a message of 32 bytes to be sure"
    sealed = int.from_bytes(message + schnorr.sign(secret, message, bytes(32)))
    changed = (sealed ^ 1 << bit).to_bytes(96)
    assert schnorr.verify(key, sealed.to_bytes(96)[:32], sealed.to_bytes(96)[32:])
    assert not schnorr.verify(key, changed[:32], changed[32:])


def point_of(factor: int) -> ec.EllipticCurvePublicNumbers:
    return ec.derive_private_key(factor, ec.SECP256K1()).public_key().public_numbers()


def even(factor: int) -> int:
    return ORDER - factor if point_of(factor).y % 2 else factor


def answer_to(challenge: int, secret: int, nonce: int) -> bytes:
    return ((nonce + challenge * even(secret)) % ORDER).to_bytes(32)


@pytest.mark.parametrize("nonce", [1, 2, 3, ORDER - 2, ORDER - 1, 2**255 + 12345])
def test_only_the_point_itself_fits_a_signature_and_none_that_shares_a_coordinate(
    nonce: int,
) -> None:
    """Also for nonces that nobody honest has, but which a peer may choose: 1 makes R the base
    point."""
    secret, message = 5, b"x"
    key, nonce = schnorr.public_key(secret.to_bytes(32)), even(nonce)
    x = point_of(nonce).x.to_bytes(32)
    tag = hashlib.sha256(b"BIP0340/challenge").digest()
    challenge = int.from_bytes(hashlib.sha256(tag + tag + x + key + message).digest()) % ORDER
    assert schnorr.verify(key, message, x + answer_to(challenge, secret, nonce))
    for other in (-nonce, -nonce - 2, -nonce - 1, nonce + 1, 0):
        assert not schnorr.verify(key, message, x + answer_to(challenge, secret, other))
    assert not schnorr.verify(key, message, x + answer_to(-challenge, secret, nonce))
    assert not schnorr.verify(key, message, x + answer_to(-challenge, secret, -nonce))


@given(st.binary(max_size=70), st.binary(max_size=40), st.binary(max_size=70))
def test_no_bytes_verify_by_chance_or_raise(key: bytes, message: bytes, signature: bytes) -> None:
    assert not schnorr.verify(key, message, signature)


@given(secrets, secrets)
def test_both_ends_find_the_same_point(one: bytes, other: bytes) -> None:
    ours, theirs = schnorr.public_key(one), schnorr.public_key(other)
    shared = schnorr.shared_x(one, theirs)
    assert shared == schnorr.shared_x(other, ours)
    product = int.from_bytes(one) * int.from_bytes(other) % ORDER
    assert shared == schnorr.public_key(product.to_bytes(32))


@pytest.mark.parametrize("number", [0, ORDER, 2**256 - 1])
def test_a_secret_key_out_of_range_is_refused(number: int) -> None:
    for use in (
        schnorr.public_key,
        lambda secret: schnorr.sign(secret, b"", bytes(32)),
        lambda secret: schnorr.shared_x(secret, BASE_X),
    ):
        with pytest.raises(ValueError, match="range of the curve") as caught:
            use(number.to_bytes(32))
        assert not number or str(number) not in str(caught.value)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_key_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        schnorr.public_key(b"\1" * length)
    assert not schnorr.is_public_key(b"\1" * length)


def test_an_x_coordinate_is_of_the_field_and_on_the_curve() -> None:
    assert schnorr.is_public_key(BASE_X)
    assert not schnorr.is_public_key((5).to_bytes(32))  # 5**3 + 7 has no square root
    assert not schnorr.is_public_key((FIELD + 1).to_bytes(32))  # 1 is on the curve
    assert schnorr.is_public_key((1).to_bytes(32))
    with pytest.raises(ValueError):
        schnorr.shared_x(bytes(31) + b"\1", (5).to_bytes(32))


def test_a_signature_that_came_out_wrong_is_not_given_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two signatures of one message, one of them with a wrong bit, tell the secret."""
    monkeypatch.setattr(schnorr, "_tagged", lambda tag, data: os.urandom(32))
    with pytest.raises(RuntimeError, match="faulty"):
        schnorr.sign(bytes(31) + b"\1", b"", bytes(32))


def test_without_the_curve_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(number: int, curve: Any) -> None:
        raise UnsupportedAlgorithm("no such curve")

    schnorr._curve.cache_clear()
    monkeypatch.setattr(ec, "derive_private_key", refuse)
    with pytest.raises(LocalError, match="install the package cryptography"):
        schnorr.public_key(bytes(31) + b"\1")
