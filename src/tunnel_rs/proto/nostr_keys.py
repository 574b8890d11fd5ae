"""Nostr keys: secp256k1 with BIP-340 signatures, written as bech32 (NIP-01, NIP-19).

pynostr does the arithmetic; here are the forms users may write and errors that tell no secret.
Both it and coincurve are imported where they are used: that takes time which only programs that
have a key should spend, and a Python for which coincurve has no build yet is to run all the rest.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunnel_rs.errors import LocalError
from tunnel_rs.values import Secret, quoted

if TYPE_CHECKING:
    from pynostr.key import PrivateKey, PublicKey

_HEX_DIGITS = frozenset("0123456789abcdefABCDEF")


def _need_arithmetic() -> None:
    """Raises LocalError where what does it is not installed."""
    if not all(map(importlib.util.find_spec, ("coincurve", "pynostr"))):
        raise LocalError(
            "Nostr keys need the packages pynostr and coincurve, and coincurve has no build for "
            "Python 3.14 yet: use Python 3.11 to 3.13 for nostr mode"
        )


@dataclass(frozen=True, slots=True, order=True)
class NostrPublicKey:
    """The x coordinate of a public key, 32 bytes."""

    key: bytes

    @classmethod
    def parse(cls, text: str) -> "NostrPublicKey":
        """Read npub1... or 64 hex digits. Raises ValueError, or LocalError: see above."""
        _need_arithmetic()
        from coincurve import PublicKeyXOnly
        from pynostr.key import PublicKey

        if text.startswith("nsec1"):
            raise ValueError("this is a secret key (nsec); the other side's npub is needed here")
        key = _bytes_of(text, "npub", PublicKey.from_npub)
        if key is None:
            raise ValueError(f"{quoted(text)} is neither npub1... nor 64 hex digits; copy it again")
        try:
            PublicKeyXOnly(key)
        except ValueError:
            raise ValueError(f"{quoted(text)} is no point of the curve; copy it again") from None
        return cls(key)

    @property
    def npub(self) -> str:
        from pynostr.key import PublicKey

        return str(PublicKey(self.key).npub)

    @property
    def hex(self) -> str:
        return self.key.hex()

    def __str__(self) -> str:
        return self.npub


class NostrSecretKey:
    """A secret key. Never shown."""

    __slots__ = ("_secret", "public_key")

    def __init__(self, secret: Secret[bytes]) -> None:
        """ValueError unless it is 32 bytes of the curve's range. LocalError: see above."""
        _need_arithmetic()
        if len(secret.reveal()) != 32:
            raise ValueError("a Nostr key has 32 bytes")
        self._secret = secret
        self.public_key = NostrPublicKey(self._pynostr().public_key.raw_bytes)

    @classmethod
    def generate(cls, random_bytes: Callable[[int], bytes]) -> "NostrSecretKey":
        """A new key from a source of secret randomness."""
        while True:
            try:
                return cls(Secret(random_bytes(32)))
            except ValueError:
                continue  # zero, or above the order of the curve: about once in 2**128

    @classmethod
    def parse(cls, text: str) -> "NostrSecretKey":
        """Read nsec1... or 64 hex digits. Raises ValueError, which never holds the key."""
        if text.startswith("npub1"):
            raise ValueError("this is a public key (npub); our own secret nsec is needed here")
        _need_arithmetic()
        from pynostr.key import PrivateKey

        key = _bytes_of(text, "nsec", lambda nsec: PrivateKey.from_nsec(nsec))
        if key is None:
            raise ValueError("the key is neither nsec1... nor 64 hex digits; copy it again")
        try:
            return cls(Secret(key))
        except ValueError:
            raise ValueError("the key is not in the range of the curve; copy it again") from None

    @property
    def nsec(self) -> str:
        """The secret itself, for key files."""
        return str(self._pynostr().nsec)

    def sign(self, digest: bytes) -> bytes:
        """BIP-340 signature of 32 bytes."""
        signature: bytes = self._pynostr().sign(digest)
        return signature

    def shared_x(self, peer: NostrPublicKey) -> bytes:
        """The x coordinate of the Diffie-Hellman point with `peer`, 32 bytes (NIP-44)."""
        from coincurve import PublicKey as CurvePoint

        point = CurvePoint(b"\x02" + peer.key).multiply(self._secret.reveal())
        return point.format(compressed=True)[1:]

    def _pynostr(self) -> "PrivateKey":
        from pynostr.key import PrivateKey

        return PrivateKey(self._secret.reveal())

    def __repr__(self) -> str:
        return f"NostrSecretKey({self.public_key.npub})"


def verify(key: NostrPublicKey, signature: bytes, digest: bytes) -> bool:
    """Whether `signature` (64 bytes) of `digest` (32 bytes) is by `key`."""
    if len(signature) != 64 or len(digest) != 32:
        return False
    from pynostr.key import PublicKey

    try:
        return bool(PublicKey(key.key).verify(signature, digest))
    except ValueError:
        return False


def _bytes_of(
    text: str, prefix: str, decode: "Callable[[str], PublicKey | PrivateKey]"
) -> bytes | None:
    """The 32 bytes of a key in either form, or None."""
    if len(text) == 64 and _HEX_DIGITS.issuperset(text):
        return bytes.fromhex(text)
    if not text.isascii() or not text.startswith(f"{prefix}1") or len(text) > 100:
        return None
    try:
        decoded = decode(text)
    except Exception:  # pynostr raises whatever its parts do
        return None
    raw = decoded.raw_bytes if prefix == "npub" else decoded.raw_secret
    return raw if isinstance(raw, bytes) and len(raw) == 32 else None
