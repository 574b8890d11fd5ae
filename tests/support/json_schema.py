"""As much of JSON Schema 2020-12 as our own schema uses. An unknown keyword is an error, so that
none is silently not checked."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]

_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "null": type(None),
    "integer": int,
    "number": (int, float),
}
_KNOWN = {
    *("$schema", "title", "$defs", "$ref", "type", "enum", "const", "anyOf", "required"),
    *("properties", "additionalProperties", "items", "minItems", "maxItems", "minimum", "pattern"),
}


def problems(
    value: Any, schema: Mapping[str, Any], root: Mapping[str, Any], at: str = ""
) -> list[str]:
    """What is wrong with `value`, and where."""
    unknown = set(schema) - _KNOWN
    assert not unknown, f"the test knows no {unknown}"
    if "$ref" in schema:
        return problems(value, root["$defs"][schema["$ref"].rpartition("/")[2]], root, at)
    if "anyOf" in schema:
        tries = [problems(value, option, root, at) for option in schema["anyOf"]]
        return [] if [] in tries else min(tries, key=len)
    return [f"{at or '/'}: {text}" for text in _own(value, schema)] + list(
        _inner(value, schema, root, at)
    )


def _own(value: Any, schema: Mapping[str, Any]) -> Iterator[str]:
    wanted = schema.get("type")
    if wanted and (
        not isinstance(value, _TYPES[wanted]) or (isinstance(value, bool) and wanted != "boolean")
    ):
        yield f"{value!r} is no {wanted}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{value!r} is none of {schema['enum']}"
    if "const" in schema and value != schema["const"]:
        yield f"{value!r} is not {schema['const']!r}"
    if "minimum" in schema and value < schema["minimum"]:
        yield f"{value!r} is less than {schema['minimum']}"
    if "pattern" in schema and not re.search(schema["pattern"], value):
        yield f"{value!r} does not match {schema['pattern']}"
    if (
        not schema.get("minItems", 0)
        <= len(value if isinstance(value, list) else ())
        <= schema.get("maxItems", 10**9)
    ):
        yield f"{len(value)} items"


def _inner(
    value: Any, schema: Mapping[str, Any], root: Mapping[str, Any], at: str
) -> Iterator[str]:
    if isinstance(value, dict):
        yield from (
            f"{at}: {name} is missing" for name in schema.get("required", ()) if name not in value
        )
        known, others = schema.get("properties", {}), schema.get("additionalProperties", {})
        for name, item in value.items():
            if name in known:
                yield from problems(item, known[name], root, f"{at}/{name}")
            elif others is False:
                yield f"{at}: {name} is not known"
            else:
                yield from problems(item, others, root, f"{at}/{name}")
    if isinstance(value, list) and "items" in schema:
        for index, item in enumerate(value):
            yield from problems(item, schema["items"], root, f"{at}/{index}")
