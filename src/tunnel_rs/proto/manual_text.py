"""Offers and answers as text to copy and paste (spec `ice.md` section 1.3).

The writer is exact. The reader forgives what mail, chat and terminals do to text: blank lines,
CRLF, quote marks, words before and after, a payload without its markers (a QR code). What it
cannot forgive it explains.
"""

import base64
import binascii
import zlib
from enum import StrEnum

from tunnel_rs.errors import ProtocolError
from tunnel_rs.proto.ice_messages import MAX_JSON

VERSION = 1
LINE = 76
"""Characters of a payload line."""

MAX_TEXT = 2 * MAX_JSON
"""Most characters of a payload. What comes before the BEGIN line is not kept, so not limited."""

MAX_LINE = 4 * MAX_JSON
"""Most characters without a line end."""

_PREFIX = "TRS"
_DASHES = "-----"
_QUOTES = "> \t"
"""What mail programs and chats put before a line."""

_TYPOGRAPHY = str.maketrans({"\u2010": "-", "\u2011": "-", "\u2013": "--", "\u2014": "---"})
_INVISIBLE = str.maketrans("", "", "\ufeff\u200b\u200c\u200d\u2060\u00ad")
_BASE64 = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


class BlockKind(StrEnum):
    """What a block holds; the values are the words in its marker lines."""

    OFFER = "OFFER"
    ANSWER = "ANSWER"


def _marker(edge: str, kind: BlockKind) -> str:
    return f"{_DASHES}{edge} TUNNEL-RS MANUAL {kind}{_DASHES}"


def encode_payload(body: bytes) -> str:
    """One line: version, CRC-32 (IEEE) of the JSON, the JSON in base64url without padding."""
    text = base64.urlsafe_b64encode(body).decode().rstrip("=")
    return f"{_PREFIX}{VERSION}:{zlib.crc32(body):08x}:{text}"


def encode_block(kind: BlockKind, body: bytes) -> str:
    """The whole block: blank line, marker, payload lines, marker, blank line."""
    payload = encode_payload(body)
    lines = [payload[start : start + LINE] for start in range(0, len(payload), LINE)]
    return "\n".join(["", _marker("BEGIN", kind), *lines, _marker("END", kind), "", ""])


def decode_payload(payload: str) -> bytes:
    """The JSON of a payload. Raises ProtocolError that says what is damaged."""
    prefix, colon, rest = payload.partition(":")
    if not colon or not prefix.startswith(_PREFIX):
        raise ProtocolError("the text does not begin with TRS1: the first line is missing")
    version = prefix.removeprefix(_PREFIX)
    if version != str(VERSION):
        shown = version if version.isascii() and version.isdigit() and len(version) < 5 else "?"
        raise ProtocolError(f"the text is of version {shown}, this program reads {VERSION}")
    checksum, colon, text = rest.partition(":")
    if not colon or len(checksum) != 8 or not _is_hex(checksum):
        raise ProtocolError("the checksum at the beginning of the text is damaged; copy it again")
    body = _decode_base64(text.rstrip("="))
    expected, found = int(checksum, 16), zlib.crc32(body)
    if expected != found:
        raise ProtocolError(
            f"the text is damaged (checksum {found:08x} instead of {expected:08x}): "
            "a part is missing or has been changed; copy the whole block again"
        )
    return body


def _is_hex(text: str) -> bool:
    return text.isascii() and all(c in "0123456789abcdefABCDEF" for c in text)


def _decode_base64(text: str) -> bytes:
    for position, character in enumerate(text):
        if character not in _BASE64:
            raise ProtocolError(
                f"the text is damaged: {character!a} at character {position + 15} does not "
                "belong there; copy the block again"
            )
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error:
        raise ProtocolError("the text is damaged: a character is missing; copy it again") from None


class PasteReader:
    """Finds one block of `kind` in lines of text. Call `feed` for each line until it returns the
    JSON; at the end of the input call `end`, which tells what was missing."""

    def __init__(self, kind: BlockKind) -> None:
        self._kind = kind
        self._inside = False
        self._payload: list[str] = []
        self._length = 0
        self.trimmed = 0
        """Lines before the block that did not belong to it; worth a hint."""

    def feed(self, line: str) -> bytes | None:
        """One line, with or without its end. The JSON when the block is complete. Raises
        ProtocolError for a block that is damaged, of the other kind, or too long."""
        if len(line) > MAX_LINE:
            raise ProtocolError(f"a line of more than {MAX_LINE} characters is no part of a block")
        text = line.translate(_INVISIBLE).strip().lstrip(_QUOTES).strip()
        if "TUNNEL" in text.upper() and (marker := self._as_marker(text)) is not None:
            return self._at_marker(*marker)
        if not self._inside:
            if (body := _bare_payload(text)) is not None:
                return body
            self.trimmed += bool(text)
        elif text:
            self._add(text)
        return None

    def end(self) -> ProtocolError:
        """Why there was no block, when the input has ended."""
        if not self._inside:
            begin = _marker("BEGIN", self._kind)
            return ProtocolError(
                f"no {self._kind.lower()} in the text: the line {begin} is missing"
            )
        return ProtocolError(
            f"the {self._kind.lower()} is cut off: the line {_marker('END', self._kind)} is missing"
        )

    def _add(self, text: str) -> None:
        self._length += len(text)
        if self._length > MAX_TEXT:
            raise ProtocolError(
                f"the {self._kind.lower()} is longer than {MAX_TEXT} characters; "
                "is this the right text?"
            )
        self._payload.append("".join(text.split()))

    def _as_marker(self, text: str) -> tuple[str, BlockKind] | None:
        words = text.translate(_TYPOGRAPHY).strip("-*`_ ").upper().split()
        for edge in ("BEGIN", "END"):
            for kind in BlockKind:
                if words == [edge, "TUNNEL-RS", "MANUAL", kind.value]:
                    return edge, kind
        return None

    def _at_marker(self, edge: str, kind: BlockKind) -> bytes | None:
        if kind is not self._kind:
            raise ProtocolError(
                f"this is an {kind.lower()}; an {self._kind.lower()} is needed here: "
                "each side pastes what the other side printed"
            )
        if edge == "BEGIN":
            # A second beginning means that the first copy went wrong: start over.
            self._inside = True
            self._payload.clear()
            self._length = 0
            return None
        if not self._inside:
            raise ProtocolError(
                f"the beginning of the {kind.lower()} is missing: copy it from the line "
                f"{_marker('BEGIN', kind)} on"
            )
        if not self._payload:
            raise ProtocolError(f"the {kind.lower()} is empty: its lines were not copied")
        return decode_payload("".join(self._payload))


def _bare_payload(line: str) -> bytes | None:
    """The JSON of a payload without markers around it, as a QR code holds it."""
    if not line.startswith(f"{_PREFIX}{VERSION}:"):
        return None
    try:
        return decode_payload(line)
    except ProtocolError:
        return None  # the first line of a block whose marker was not copied


def find_block(kind: BlockKind, text: str) -> tuple[bytes, int]:
    """The JSON of the first block in `text`, and how many lines before it did not belong to it.
    Raises ProtocolError."""
    reader = PasteReader(kind)
    for line in text.splitlines():
        body = reader.feed(line)
        if body is not None:
            return body, reader.trimmed
    raise reader.end()
