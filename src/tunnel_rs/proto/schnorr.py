"""Keys, Diffie-Hellman and Schnorr signatures over secp256k1, keys being x coordinates (BIP-340).

OpenSSL multiplies the points, through `cryptography`: where a factor is secret it takes the same
time for each. What it has no function for, the sums of a signature, is arithmetic of Python's
integers; docs/SECURITY.md weighs what its timing may tell.
"""

import functools
import hashlib

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature

from tunnel_rs.errors import LocalError

_FIELD = 2**256 - 2**32 - 977
_ORDER = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141
_BASE = (
    0x79BE667E_F9DCBBAC_55A06295_CE870B07_029BFCDB_2DCE28D9_59F2815B_16F81798,
    0x483ADA77_26A3C465_5DA4FBFC_0E1108A8_FD17B448_A6855419_9C47D08F_FB10D4B8,
)
"""The base point G (SEC 2, section 2.4.1); its y is even."""

_ECDSA = ec.ECDSA(Prehashed(hashes.SHA256()))


@functools.cache
def _curve() -> ec.EllipticCurve:
    """Raises LocalError where OpenSSL was built without it."""
    curve = ec.SECP256K1()
    try:
        ec.derive_private_key(1, curve)
    except UnsupportedAlgorithm:
        raise LocalError(
            "Nostr keys need the curve secp256k1, which this system's OpenSSL was built without; "
            "install the package cryptography from PyPI, which brings an OpenSSL of its own"
        ) from None
    return curve


def public_key(secret: bytes) -> bytes:
    """The public key of a secret key, both 32 bytes. ValueError if it is out of range."""
    return _x(_point_of(_scalar(secret)))


def is_public_key(key: bytes) -> bool:
    """Whether these 32 bytes are the x coordinate of a point."""
    try:
        _lift(key)
    except ValueError:
        return False
    return True


def shared_x(secret: bytes, peer: bytes) -> bytes:
    """The x coordinate of the Diffie-Hellman point, 32 bytes. ValueError for what is no key."""
    private = ec.derive_private_key(_scalar(secret), _curve())
    return private.exchange(ec.ECDH(), _lift(peer))


def sign(secret: bytes, message: bytes, fresh: bytes) -> bytes:
    """A signature, 64 bytes. `fresh` is 32 random bytes. They need not be secret, and signing is
    safe without them; they keep those who measure it from seeing the same steps twice."""
    factor = _scalar(secret)
    point = _point_of(factor)
    key, factor = _x(point), _of_even_point(factor, point)
    mask = _tagged("aux", fresh)
    masked = bytes(a ^ b for a, b in zip(factor.to_bytes(32), mask, strict=True))
    nonce = int.from_bytes(_tagged("nonce", masked + key + message)) % _ORDER
    commitment = _point_of(nonce)
    nonce, x = _of_even_point(nonce, commitment), _x(commitment)
    answer = (nonce + _challenge(x, key, message) * factor) % _ORDER
    signature = x + answer.to_bytes(32)
    if not verify(key, message, signature):
        # Giving it away could give the key away.
        raise RuntimeError("a signature does not verify: this machine's arithmetic is faulty")
    return signature


def verify(key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether `signature` (64 bytes) of `message` is by `key` (32 bytes).

    It is if s*G - e*P is the point R with x coordinate r and an even y. ECDSA asks OpenSSL much
    the same, of the x coordinate alone. The y are two, of R and -R, so it is asked for the x of
    s*G - e*P + G, too, which of the two only R fits.
    """
    r, s = int.from_bytes(signature[:32]), int.from_bytes(signature[32:])
    if len(signature) != 64 or not 0 < r < _ORDER or s >= _ORDER:
        return False
    try:
        point, commitment = _lift(key), _lift(signature[:32])
    except ValueError:
        return False
    e = _challenge(signature[:32], key, message)
    beyond = _plus_base(commitment.public_numbers())
    return _has_x(r, s, e, point) and _has_x(beyond, s + 1, e, point)


def _has_x(x: int, s: int, e: int, point: ec.EllipticCurvePublicKey) -> bool:
    """Whether s*G - e*P has this x coordinate, by its remainder modulo the order of the curve.

    ECDSA takes (r, w) as a signature of z if z/w*G + r/w*P has the x coordinate r: so r is `x`,
    w is -x/e and z is s*w. Nothing here is secret.
    """
    x %= _ORDER
    if not x or not e:  # nobody finds a message for which it is so
        return False
    w = -x * pow(e, -1, _ORDER) % _ORDER
    try:
        point.verify(encode_dss_signature(x, w), (s * w % _ORDER).to_bytes(32), _ECDSA)
    except InvalidSignature:
        return False
    return True


def _plus_base(point: ec.EllipticCurvePublicNumbers) -> int:
    """The x coordinate of R + G for an R with an even y, which therefore is not -G."""
    x, y = _BASE
    if point.x == x:
        slope = 3 * x * x * pow(2 * y, -1, _FIELD)
    else:
        slope = (point.y - y) * pow(point.x - x, -1, _FIELD)
    return (slope * slope - point.x - x) % _FIELD


def _scalar(secret: bytes) -> int:
    number = int.from_bytes(secret)
    if len(secret) != 32 or not 0 < number < _ORDER:
        raise ValueError("a secret key is 32 bytes in the range of the curve")
    return number


def _point_of(factor: int) -> ec.EllipticCurvePublicNumbers:
    """factor*G."""
    return ec.derive_private_key(factor, _curve()).public_key().public_numbers()


def _of_even_point(factor: int, point: ec.EllipticCurvePublicNumbers) -> int:
    """`factor` or its negative: the one whose point has an even y."""
    return _ORDER - factor if point.y & 1 else factor


def _x(point: ec.EllipticCurvePublicNumbers) -> bytes:
    return point.x.to_bytes(32)


def _lift(x: bytes) -> ec.EllipticCurvePublicKey:
    """The point of this x coordinate with an even y. ValueError if there is none."""
    if len(x) != 32:
        raise ValueError("an x coordinate has 32 bytes")
    return ec.EllipticCurvePublicKey.from_encoded_point(_curve(), b"\x02" + x)


def _challenge(x: bytes, key: bytes, message: bytes) -> int:
    return int.from_bytes(_tagged("challenge", x + key + message)) % _ORDER


def _tagged(tag: str, data: bytes) -> bytes:
    tag_hash = hashlib.sha256(f"BIP0340/{tag}".encode()).digest()
    return hashlib.sha256(tag_hash + tag_hash + data).digest()
