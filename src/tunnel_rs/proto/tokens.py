"""Access tokens: making and checking them (spec `tunnel-protocol.md`, "Tokens").

A token is `i`, 16 body characters and a check character: Luhn modulo 65 over the 17 characters
after the `i`. No error here quotes a token or a part of it.
"""

from collections.abc import Callable

from tunnel_rs.values import Secret

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_."
TOKEN_LENGTH = 18
PREFIX = "i"

_BASE = len(ALPHABET)
_BODY_LENGTH = TOKEN_LENGTH - 2
_INDEX = {character: index for index, character in enumerate(ALPHABET)}

_UNBIASED = 256 // _BASE * _BASE
"""Random bytes from here on are thrown away: they would make some characters likelier."""


def _luhn_sum(checked: str) -> int:
    """Luhn sum modulo 65, the rightmost character with factor 1, then 2, 1, ..."""
    products = (_INDEX[c] * (1 + i % 2) for i, c in enumerate(reversed(checked)))
    return sum(p // _BASE + p % _BASE for p in products) % _BASE


def _check_character(body: str) -> str:
    return ALPHABET[-_luhn_sum(body + ALPHABET[0]) % _BASE]


def generate_token(random_bytes: Callable[[int], bytes]) -> Secret[str]:
    """A new token. `random_bytes(n)` gives n bytes fit for secrets, for example os.urandom."""
    body = ""
    while len(body) < _BODY_LENGTH:
        wanted = random_bytes(_BODY_LENGTH - len(body))
        body += "".join(ALPHABET[byte % _BASE] for byte in wanted if byte < _UNBIASED)
    return Secret(PREFIX + body + _check_character(body))


def check_token(text: str) -> Secret[str]:
    """The token, when it is well formed. Raises ValueError saying what is wrong."""
    if len(text) != TOKEN_LENGTH:
        raise ValueError(f"a token has {TOKEN_LENGTH} characters, this has {len(text)}")
    if text[0] != PREFIX:
        raise ValueError(f"a token begins with {PREFIX!r}, this does not")
    for position, character in enumerate(text[1:], start=2):
        if character not in _INDEX:
            raise ValueError(
                f"character {position} of the token is none of A-Z a-z 0-9 - _ . ; copy it again"
            )
    if _luhn_sum(text[1:]) != 0:
        raise ValueError("the token's check character does not fit: a typing error; copy it again")
    return Secret(text)
