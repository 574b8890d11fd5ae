"""Reading JSON objects that a peer sent: strictly, field by field, and without ever quoting them.

A token may be in them; the exceptions of `json` keep the text they failed on, so a failure is told
by a ProtocolError that holds the names of message and field alone.
"""

import json
from typing import Any, TypeVar

from tunnel_rs.errors import ProtocolError

_V = TypeVar("_V", str, bool, int)

_WANTED = {str: "text", bool: "true or false", int: "a whole number"}


def is_unicode(text: str) -> bool:
    """Whether `text` has a UTF-8 form, that is no lone surrogates."""
    return text.isascii() or not any("\ud800" <= c <= "\udfff" for c in text)


class JsonFields:
    """The fields of one received object, judged as they are asked for. Unknown ones are ignored.

    `name` says in errors what the object is. Raises ProtocolError when `body` is none.
    """

    def __init__(self, name: str, body: bytes) -> None:
        pairs = _parse(body)
        if not isinstance(pairs, tuple):
            raise ProtocolError(f"the {name} is not a JSON object in UTF-8")
        self._name = name
        self._pairs: tuple[tuple[str, Any], ...] = pairs

    def single(self, field: str) -> object:
        """The value of a field, None when absent. The same field twice is refused, as readers
        disagree on which one counts."""
        values = [value for key, value in self._pairs if key == field]
        if len(values) > 1:
            raise ProtocolError(f"the {self._name} has the field {field!r} twice")
        return values[0] if values else None

    def required(self, field: str, kind: type[_V]) -> _V:
        value = self.single(field)
        if value is None:
            raise ProtocolError(f"the {self._name} has no field {field!r}")
        return self._checked(field, kind, value)

    def optional(self, field: str, kind: type[_V]) -> _V | None:
        value = self.single(field)
        return None if value is None else self._checked(field, kind, value)

    def texts(self, field: str, *, limit: int) -> tuple[str, ...]:
        """An array of at most `limit` texts; empty when absent."""
        values = self.single(field)
        if values is None:
            return ()
        if not isinstance(values, list) or len(values) > limit:
            raise ProtocolError(f"the field {field!r} of the {self._name} is no list of few texts")
        return tuple(self._checked(field, str, value) for value in values)

    def _checked(self, field: str, kind: type[_V], value: object) -> _V:
        # A JSON true is no number, though Python's True is an int.
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise ProtocolError(f"the field {field!r} of the {self._name} is not {_WANTED[kind]}")
        if isinstance(value, str) and not is_unicode(value):
            raise ProtocolError(f"the field {field!r} of the {self._name} is not Unicode text")
        return value


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON")


def _parse(body: bytes) -> object:
    """The JSON value, objects as tuples of pairs, or None when `body` is not UTF-8 JSON."""
    try:
        return json.loads(
            body.decode("utf-8"), object_pairs_hook=tuple, parse_constant=_refuse_constant
        )
    except (ValueError, RecursionError):
        return None
