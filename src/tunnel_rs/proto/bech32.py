"""Bech32: bytes as text with a name in front and a checksum behind (BIP-173).

Without the limit of 90 characters, as NIP-19 has it; the callers here know how long theirs are.
"""

_ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_VALUES = {character: value for value, character in enumerate(_ALPHABET)}
_GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_CHECKSUM_LENGTH = 6


def encode(name: str, data: bytes) -> str:
    """`data` under `name`, which is of lower case letters and digits."""
    values = _regroup(data, 8, 5)
    if len(data) % 5:  # the last group is filled up with zeros
        values.append((data[-1] << -len(data) * 8 % 5) & 31)
    remainder = _remainder(name, [*values, *bytes(_CHECKSUM_LENGTH)]) ^ 1
    checksum = [remainder >> 5 * place & 31 for place in reversed(range(_CHECKSUM_LENGTH))]
    return name + "1" + "".join(_ALPHABET[value] for value in (*values, *checksum))


def decode(name: str, text: str) -> bytes:
    """What `text` holds. ValueError, which tells nothing of it, unless it is all of `name`, data
    and right checksum, in one case."""
    if not text.isascii() or text not in (text.lower(), text.upper()):
        raise ValueError("letters of both cases are mixed, or some are not of ASCII")
    found, separator, tail = text.lower().rpartition("1")
    if not separator or found != name:
        raise ValueError(f"it does not begin with {name}1")
    if len(tail) < _CHECKSUM_LENGTH or not _VALUES.keys() >= set(tail):
        raise ValueError("it is cut off or holds a character of another alphabet")
    values = [_VALUES[character] for character in tail]
    if _remainder(name, values) != 1:
        raise ValueError("its checksum is wrong")
    values = values[:-_CHECKSUM_LENGTH]
    left_over = len(values) * 5 % 8
    if left_over > 4 or (left_over and values[-1] & ((1 << left_over) - 1)):
        raise ValueError("it does not end on a whole byte")
    return bytes(_regroup(values, 5, 8))


def _regroup(groups: "bytes | list[int]", size: int, wanted: int) -> list[int]:
    """The same bits in groups of `wanted` bits; what does not fill a last one is left out."""
    held = bits = 0
    regrouped = []
    for group in groups:
        held, bits = (held << size | group) & 0xFFF, bits + size
        while bits >= wanted:
            bits -= wanted
            regrouped.append(held >> bits & ((1 << wanted) - 1))
    return regrouped


def _remainder(name: str, values: list[int]) -> int:
    """Name and values as a polynomial over GF(32), divided by the code's generator."""
    letters = name.encode("ascii")
    remainder = 1
    for value in (*(x >> 5 for x in letters), 0, *(x & 31 for x in letters), *values):
        top = remainder >> 25
        remainder = (remainder & 0x1FFFFFF) << 5 ^ value
        for bit, part in enumerate(_GENERATOR):
            if top >> bit & 1:
                remainder ^= part
    return remainder
