"""Our own identity: the Ed25519 seed, its text form, and the EndpointId it proves (spec
`tunnel-protocol.md`, "Keys")."""

import base64
import binascii
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tunnel_rs.values import EndpointId, Secret

SECRET_KEY_SIZE = 32
"""Bytes of an Ed25519 seed (RFC 8032 section 5.1.5)."""


def generate_secret_key(random_bytes: Callable[[int], bytes]) -> Secret[bytes]:
    """A new seed. `random_bytes(n)` gives n bytes fit for secrets, for example os.urandom."""
    return Secret(_of_full_size(random_bytes(SECRET_KEY_SIZE)))


def endpoint_id(seed: Secret[bytes]) -> EndpointId:
    """The public key of a seed. ValueError when it is not 32 bytes."""
    key = Ed25519PrivateKey.from_private_bytes(_of_full_size(seed.reveal()))
    return EndpointId(key.public_key().public_bytes_raw())


def encode_secret_key(seed: Secret[bytes]) -> str:
    """Standard base64, 44 characters, no line end: a secret. ValueError when not 32 bytes."""
    return base64.b64encode(_of_full_size(seed.reveal())).decode()


def decode_secret_key(text: str) -> Secret[bytes]:
    """Read standard base64 of 32 bytes; blanks and line ends around it are ignored.

    Raises ValueError saying what is wrong, never quoting the text.
    """
    written = text.strip()
    try:
        seed = base64.b64decode(written, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("the secret key is not base64") from None
    if base64.b64encode(_of_full_size(seed)).decode() != written:
        raise ValueError("the secret key is not base64: stray bits at its end; copy it again")
    return Secret(seed)


def _of_full_size(seed: bytes) -> bytes:
    if len(seed) != SECRET_KEY_SIZE:
        raise ValueError(f"a secret key has {SECRET_KEY_SIZE} bytes, this has {len(seed)}")
    return seed
