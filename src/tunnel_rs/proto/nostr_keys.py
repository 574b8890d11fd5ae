"""Nostr keys: secp256k1 with BIP-340 signatures, written as bech32 (NIP-01, NIP-19).

Here are the forms users may write, and errors that tell no secret.
"""

from collections.abc import Callable
from dataclasses import dataclass

from tunnel_rs.proto import bech32, schnorr
from tunnel_rs.values import Secret, quoted

_HEX_DIGITS = frozenset("0123456789abcdefABCDEF")

RANDOM_LENGTH = 32
"""Bytes of randomness that a signature takes."""


@dataclass(frozen=True, slots=True, order=True)
class NostrPublicKey:
    """The x coordinate of a public key, 32 bytes."""

    key: bytes

    @classmethod
    def parse(cls, text: str) -> "NostrPublicKey":
        """Read npub1... or 64 hex digits. Raises ValueError."""
        if text.startswith("nsec1"):
            raise ValueError("this is a secret key (nsec); the other side's npub is needed here")
        key = _bytes_of(text, "npub")
        if key is None:
            raise ValueError(f"{quoted(text)} is neither npub1... nor 64 hex digits; copy it again")
        if not schnorr.is_public_key(key):
            raise ValueError(f"{quoted(text)} is no point of the curve; copy it again")
        return cls(key)

    @property
    def npub(self) -> str:
        return bech32.encode("npub", self.key)

    @property
    def hex(self) -> str:
        return self.key.hex()

    def __str__(self) -> str:
        return self.npub


class NostrSecretKey:
    """A secret key. Never shown."""

    __slots__ = ("_secret", "public_key")

    def __init__(self, secret: Secret[bytes]) -> None:
        """ValueError unless it is 32 bytes of the curve's range."""
        self._secret = secret
        self.public_key = NostrPublicKey(schnorr.public_key(secret.reveal()))

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
        key = _bytes_of(text, "nsec")
        if key is None:
            raise ValueError("the key is neither nsec1... nor 64 hex digits; copy it again")
        try:
            return cls(Secret(key))
        except ValueError:
            raise ValueError("the key is not in the range of the curve; copy it again") from None

    @property
    def nsec(self) -> str:
        """The secret itself, for key files."""
        return bech32.encode("nsec", self._secret.reveal())

    def sign(self, digest: bytes, fresh: bytes) -> bytes:
        """BIP-340 signature of 32 bytes. `fresh` is `RANDOM_LENGTH` random bytes."""
        return schnorr.sign(self._secret.reveal(), digest, fresh)

    def shared_x(self, peer: NostrPublicKey) -> bytes:
        """The x coordinate of the Diffie-Hellman point with `peer`, 32 bytes (NIP-44)."""
        return schnorr.shared_x(self._secret.reveal(), peer.key)

    def __repr__(self) -> str:
        return f"NostrSecretKey({self.public_key.npub})"


def verify(key: NostrPublicKey, signature: bytes, digest: bytes) -> bool:
    """Whether `signature` (64 bytes) of `digest` (32 bytes) is by `key`."""
    return schnorr.verify(key.key, digest, signature)


def _bytes_of(text: str, prefix: str) -> bytes | None:
    """The 32 bytes of a key in either form, or None."""
    if len(text) == 64 and _HEX_DIGITS.issuperset(text):
        return bytes.fromhex(text)
    if not text.startswith(f"{prefix}1") or len(text) > 100:
        return None
    try:
        key = bech32.decode(prefix, text)
    except ValueError:
        return None
    return key if len(key) == 32 else None
