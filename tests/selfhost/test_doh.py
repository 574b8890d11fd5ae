import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel_rs.proto.dns_wire import (
    RecordType,
    ResourceRecord,
    Response,
    ResponseCode,
    encode_answers,
    encode_name,
    encode_query,
    encode_strings,
    parse_name,
)
from tunnel_rs.proto.dns_zone import StartOfAuthority
from tunnel_rs.selfhost.doh import (
    Form,
    answer_form,
    cache_seconds,
    json_body,
    query_from_message,
    query_from_parameters,
)

NAME = parse_name("_iroh.example.")
MESSAGE = encode_query(NAME, RecordType.TXT, 7)


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        (None, Form.MESSAGE),
        ("", Form.MESSAGE),
        ("*/*", Form.MESSAGE),
        ("application/dns-message", Form.MESSAGE),
        ("application/dns-json", Form.JSON),
        ("application/x-javascript", Form.JSON),
        ("text/html, Application/DNS-JSON;q=0.9", Form.JSON),
        ("text/html", None),
        ("application/json", None),
    ],
)
def test_the_answers_form_follows_accept(accept: str | None, form: Form | None) -> None:
    assert answer_form(accept, Form.MESSAGE) is form


@pytest.mark.parametrize("padding", ["", "="])
def test_a_query_is_read_from_base64url(padding: str) -> None:
    text = base64.urlsafe_b64encode(MESSAGE).decode().rstrip("=") + padding
    query = query_from_parameters({"dns": text})
    assert (query.name, query.type, query.id) == (NAME, RecordType.TXT, 7)


@pytest.mark.parametrize(
    ("kind", "number"), [("TXT", 16), ("txt", 16), ("16", 16), ("65", 65), (None, 1)]
)
def test_a_query_is_read_from_name_and_type(kind: str | None, number: int) -> None:
    query = query_from_parameters({"name": "_iroh.example"} | ({"type": kind} if kind else {}))
    assert (query.name, query.type, query.edns) == (NAME, number, None)


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"type": "TXT"},
        {"name": "a..b"},
        {"name": "ä.example"},
        {"name": "a", "type": "WAT"},
        {"name": "a", "type": "65536"},
        {"name": "a", "type": "²"},
        {"dns": ""},
        {"dns": "!!!!"},
        {"dns": "AAAA"},
        {"dns": "é"},
        {"dns": base64.urlsafe_b64encode(encode_answers([])).decode()},
        {"dns": base64.urlsafe_b64encode(bytes(3000)).decode()},
    ],
)
def test_other_parameters_are_refused(parameters: dict[str, str]) -> None:
    with pytest.raises(ValueError):
        query_from_parameters(parameters)


def test_a_response_is_no_query() -> None:
    message = bytearray(MESSAGE)
    message[2] |= 0x80
    with pytest.raises(ValueError, match="response"):
        query_from_message(bytes(message))


@given(st.dictionaries(st.sampled_from(["dns", "name", "type"]), st.text(max_size=40)))
def test_any_parameters_are_read_or_refused(parameters: dict[str, str]) -> None:
    try:
        query_from_parameters(parameters)
    except ValueError:
        pass


def test_the_json_form_names_question_and_answers() -> None:
    soa = StartOfAuthority.parse("ns.example. host.example. 1 2 3 4 5")
    records = (
        ResourceRecord(NAME, RecordType.TXT, 30, encode_strings([b'a"b\\', b"\xff"])),
        ResourceRecord(NAME, RecordType.A, 20, b"\xc0\0\2\1"),
        ResourceRecord(NAME, RecordType.AAAA, 40, bytes(15) + b"\1"),
        ResourceRecord(NAME, RecordType.CNAME, 40, encode_name((b"x",))),
        ResourceRecord(NAME, 99, 40, b"\xab"),
    )
    authority = (ResourceRecord(NAME, RecordType.SOA, 1, soa.encode()),)
    answer = Response(ResponseCode.NOERROR, records, authority)
    body = json.loads(json_body(query_from_message(MESSAGE), answer))
    assert body["Status"] == 0
    assert body["RD"] is True
    assert body["Question"] == [{"name": "_iroh.example.", "type": 16}]
    assert [each["data"] for each in body["Answer"]] == [
        '"a\\"b\\\\" "\\255"',
        "192.0.2.1",
        "::1",
        "x.",
        "\\# 1 ab",
    ]
    assert body["Answer"][0]["TTL"] == 30
    assert body["Authority"][0]["data"] == "ns.example. host.example. 1 2 3 4 5"
    assert cache_seconds(answer) == 20


def test_a_negative_answer_is_cached_as_its_soa_says() -> None:
    authority = (ResourceRecord(NAME, RecordType.SOA, 17, b""),)
    assert cache_seconds(Response(ResponseCode.NXDOMAIN, authority=authority)) == 17
    assert cache_seconds(Response(ResponseCode.REFUSED)) is None
