"""DNS over HTTPS: requests to queries, answers to bodies (RFC 8484, and the JSON form that public
resolvers share; spec `discovery.md` section 4). No I/O."""

import base64
import binascii
import json
from collections.abc import Mapping
from enum import Enum
from ipaddress import IPv4Address, IPv6Address

from tunnel_rs.proto.dns_wire import (
    DnsFormatError,
    Query,
    RecordType,
    ResourceRecord,
    Response,
    encode_query,
    name_text,
    parse_name,
    parse_query,
    read_name,
    read_strings,
)

MESSAGE_TYPE = "application/dns-message"
JSON_TYPE = "application/dns-json"
MAX_MESSAGE = 2048

_JSON_TYPES = (JSON_TYPE, "application/x-javascript")
_ANY_TYPES = ("*/*", "application/*")


class Form(Enum):
    """What the answer's body is."""

    MESSAGE = MESSAGE_TYPE
    JSON = JSON_TYPE


def answer_form(accept: str | None, default: Form) -> Form | None:
    """The first form among those a client accepts that we have; None when there is none."""
    if not accept:
        return default
    for part in accept.split(","):
        media_type = part.partition(";")[0].strip().lower()
        if media_type in _ANY_TYPES:
            return default
        if media_type == MESSAGE_TYPE:
            return Form.MESSAGE
        if media_type in _JSON_TYPES:
            return Form.JSON
    return None


def query_from_parameters(parameters: Mapping[str, str]) -> Query:
    """The query of a GET: `dns` in base64url, or `name` and `type`. Raises ValueError."""
    if "dns" in parameters:
        return query_from_message(_decode_base64url(parameters["dns"]))
    if "name" not in parameters:
        raise ValueError("missing parameter: dns, or name")
    try:
        name = parse_name(parameters["name"])
    except ValueError:
        raise ValueError("parameter name is not a domain name") from None
    kind = _record_type(parameters.get("type", "A"))
    return parse_query(encode_query(name, kind, 0, edns=False))


def query_from_message(message: bytes) -> Query:
    """The query in a message body. Raises ValueError."""
    if len(message) > MAX_MESSAGE:
        raise ValueError(f"a query of more than {MAX_MESSAGE} bytes")
    try:
        query = parse_query(message)
    except DnsFormatError as error:
        raise ValueError(str(error)) from None
    if query.flags & 0x8000:
        raise ValueError("a response, not a query")
    return query


def _decode_base64url(text: str) -> bytes:
    try:
        data = text.rstrip("=").encode("ascii")
        return base64.b64decode(data + b"=" * (-len(data) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        raise ValueError("parameter dns is not base64url") from None


def _record_type(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= 5 and int(text) < 65536:
        return int(text)
    try:
        return RecordType[text.upper()]
    except KeyError:
        raise ValueError("parameter type is not a record type known here") from None


def cache_seconds(response: Response) -> int | None:
    """How long a cache may keep the answer: the smallest TTL in it."""
    records = response.answers or response.authority
    return min((record.ttl for record in records), default=None)


def json_body(query: Query, response: Response) -> bytes:
    """The JSON form of an answer."""
    name = name_text(query.name)
    body: dict[str, object] = {
        "Status": int(response.code),
        "TC": response.truncated,
        "RD": bool(query.flags & 0x0100),
        "RA": False,
        "AD": False,
        "CD": False,
        "Question": [{"name": name, "type": query.type}],
    }
    for section, records in (("Answer", response.answers), ("Authority", response.authority)):
        if records:
            body[section] = [_json_record(record) for record in records]
    return json.dumps(body, separators=(",", ":")).encode()


def _json_record(record: ResourceRecord) -> dict[str, object]:
    return {
        "name": name_text(record.name),
        "type": int(record.type),
        "TTL": record.ttl,
        "data": _data_text(record),
    }


def _data_text(record: ResourceRecord) -> str:
    data = record.data
    match record.type:
        case RecordType.A if len(data) == 4:
            return str(IPv4Address(data))
        case RecordType.AAAA if len(data) == 16:
            return str(IPv6Address(data))
        case RecordType.TXT:
            return " ".join(_quoted(string) for string in read_strings(data))
        case RecordType.CNAME | RecordType.NS:
            return name_text(read_name(data, 0)[0])
        case RecordType.SOA:
            primary, offset = read_name(data, 0)
            mailbox, offset = read_name(data, offset)
            numbers = (data[start : start + 4] for start in range(offset, len(data), 4))
            values = " ".join(str(int.from_bytes(number, "big")) for number in numbers)
            return f"{name_text(primary)} {name_text(mailbox)} {values}"
        case _:
            return f"\\# {len(data)} {data.hex()}"  # RFC 3597 section 5


def _quoted(string: bytes) -> str:
    shown = "".join(
        f"\\{chr(byte)}" if byte in b'"\\' else chr(byte) if 32 <= byte < 127 else f"\\{byte:03d}"
        for byte in string
    )
    return f'"{shown}"'
