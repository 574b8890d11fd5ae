import struct

import dnslib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel_rs.proto.dns_wire import (
    DnsFormatError,
    Edns,
    Name,
    Query,
    RecordType,
    ResourceRecord,
    Response,
    ResponseCode,
    answers_to,
    encode_answers,
    encode_name,
    encode_query,
    encode_response,
    encode_strings,
    format_error,
    name_text,
    parse_answers,
    parse_name,
    parse_query,
    read_name,
    read_strings,
)

# A query of a real iroh endpoint (spec discovery.md section 8).
CAPTURED_QUERY = bytes.fromhex(
    "1c1a01000001000000000001055f69726f6834646639737365396270316e756674696d3379687869756b3677367235"
    "68646473736b6a79677079647578376573786a7374696f6f03646e730469726f68046c696e6b000010000100002904"
    "d0000000000000"
)

labels = st.binary(min_size=1, max_size=20).map(bytes.lower)
names = st.lists(labels, max_size=6).map(tuple)
records = st.builds(
    ResourceRecord,
    names,
    st.sampled_from([RecordType.TXT, RecordType.A, 99]),
    st.integers(0, 2**32 - 1),
    st.binary(max_size=40),
)


def ask(text: str, kind: int = RecordType.TXT, *, edns: bool = True) -> Query:
    return parse_query(encode_query(parse_name(text), kind, 7, edns=edns))


def test_the_query_of_a_real_endpoint_is_read_and_made_byte_for_byte() -> None:
    query = parse_query(CAPTURED_QUERY)
    name = "_iroh.df9sse9bp1nuftim3yhxiuk6w6r5hddsskjygpydux7esxjstioo.dns.iroh.link."
    assert name_text(query.name) == name
    assert (query.id, query.type, query.opcode) == (0x1C1A, RecordType.TXT, 0)
    assert query.edns == Edns(1232)
    assert encode_query(parse_name(name), RecordType.TXT, 0x1C1A) == CAPTURED_QUERY


@given(names)
def test_names_survive_the_wire(name: Name) -> None:
    assert read_name(encode_name(name), 0) == (name, len(encode_name(name)))


@given(st.lists(records, max_size=12))
def test_records_survive_the_wire(sent: list[ResourceRecord]) -> None:
    assert parse_answers(encode_answers(sent)) == tuple(sent)


@given(st.lists(st.from_regex(r"\A[a-c]{1,9}(\.[a-c]{1,9}){0,4}\Z"), max_size=12))
def test_another_library_reads_the_same_names(texts: list[str]) -> None:
    sent = [ResourceRecord(parse_name(text), RecordType.A, 1, b"\x7f\0\0\1") for text in texts]
    parsed = dnslib.DNSRecord.parse(encode_answers(sent))
    assert [str(rr.rname) for rr in parsed.rr] == [f"{text}." for text in texts]


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for read in (parse_query, parse_answers):
        try:
            read(data)
        except DnsFormatError:
            pass


@given(st.binary(min_size=12, max_size=12), st.binary(max_size=120))
def test_any_counts_over_any_body_are_read_or_refused(header: bytes, body: bytes) -> None:
    for counts in (b"\0\1" + bytes(6), b"\0\1\0\1\0\1\0\2", header[4:]):
        for read in (parse_query, parse_answers):
            try:
                read(header[:4] + counts + body)
            except DnsFormatError:
                pass


@given(st.integers(0, len(CAPTURED_QUERY) - 1))
def test_a_cut_off_query_is_refused(length: int) -> None:
    with pytest.raises(DnsFormatError):
        parse_query(CAPTURED_QUERY[:length])


@pytest.mark.parametrize(
    "pointer", [b"\xc0\x0c", b"\xc0\x0e", b"\xc0\xff", b"\xc0", b"\x40", b"\x80"]
)
def test_pointers_that_do_not_lead_back_are_refused(pointer: bytes) -> None:
    with pytest.raises(DnsFormatError):
        read_name(bytes(12) + pointer, 12)


def test_a_chain_of_pointers_ends() -> None:
    message = b"\1a\0" + b"".join(
        struct.pack(">H", 0xC000 | (0 if index == 0 else 3 + 2 * (index - 1)))
        for index in range(1000)
    )
    assert read_name(message, len(message) - 2) == ((b"a",), len(message))


def test_a_name_over_255_octets_is_refused() -> None:
    label = b"\x3f" + b"a" * 63
    assert len(read_name(label * 3 + b"\x3d" + b"b" * 61 + b"\0", 0)[0]) == 4
    with pytest.raises(DnsFormatError):
        read_name(label * 3 + b"\x3e" + b"b" * 62 + b"\0", 0)
    # Pointers must not lift the limit: each label prepends to what it points to.
    with pytest.raises(DnsFormatError):
        read_name(label * 3 + b"\0" + label + b"\xc0\x00", 193)


def test_more_than_256_records_are_refused_before_they_are_read() -> None:
    with pytest.raises(DnsFormatError, match="256"):
        parse_answers(struct.pack(">6H", 0, 0x8000, 0, 257, 0, 0) + bytes(11 * 257))


@pytest.mark.parametrize("questions", [0, 2, 65535])
def test_a_query_has_exactly_one_question(questions: int) -> None:
    message = bytearray(CAPTURED_QUERY)
    message[4:6] = questions.to_bytes(2, "big")
    with pytest.raises(DnsFormatError):
        parse_query(bytes(message))


def test_a_question_with_a_compressed_name_is_refused() -> None:
    header = struct.pack(">6H", 0x0161, 0, 1, 0, 0, 0)
    with pytest.raises(DnsFormatError, match="compressed"):
        parse_query(header + b"\xc0\x04" + struct.pack(">HH", 16, 1))


def test_two_opt_records_are_refused() -> None:
    message = bytearray(CAPTURED_QUERY) + CAPTURED_QUERY[-11:]
    message[11] = 2
    with pytest.raises(DnsFormatError, match="OPT"):
        parse_query(bytes(message))


def test_names_are_compared_in_lower_case_and_echoed_as_asked() -> None:
    raw = bytearray(CAPTURED_QUERY)
    raw[14:18] = b"IrOh"
    query = parse_query(bytes(raw))
    assert query.name[0] == b"_iroh"
    answer = encode_response(query, Response(ResponseCode.NXDOMAIN), 512)
    assert b"_IrOh" in answer


def test_answers_compress_the_name_asked_for() -> None:
    query = ask("_iroh.abc.example.")
    record = ResourceRecord(query.name, RecordType.TXT, 30, encode_strings([b"x"]))
    message = encode_response(query, Response(ResponseCode.NOERROR, (record, record)), 512)
    assert message.count(b"\x05_iroh") == 1
    parsed = dnslib.DNSRecord.parse(message)
    assert [str(rr.rname) for rr in parsed.rr] == ["_iroh.abc.example."] * 2


def test_an_answer_over_the_limit_becomes_a_truncated_one() -> None:
    query = ask("a.example.")
    record = ResourceRecord(query.name, RecordType.TXT, 30, bytes(600))
    response = Response(ResponseCode.NOERROR, (record,), authoritative=True)
    message = encode_response(query, response, 512)
    parsed = dnslib.DNSRecord.parse(message)
    assert len(message) < 60
    assert (parsed.header.tc, parsed.header.aa, len(parsed.rr)) == (1, 1, 0)
    assert len(encode_response(query, response, 1232)) > 600


def test_opt_is_answered_only_when_asked() -> None:
    refused = Response(ResponseCode.REFUSED)
    assert b"\x04\xd0" in encode_response(ask("a."), refused, 512)[-11:]
    assert dnslib.DNSRecord.parse(encode_response(ask("a.", edns=False), refused, 512)).ar == []


def test_an_extended_code_is_split_over_header_and_opt() -> None:
    message = encode_response(ask("a."), Response(ResponseCode.BADVERS), 512)
    assert message[3] & 0xF == 0
    assert message[-6] == 1


def test_the_answer_to_an_unreadable_query_is_a_bare_header() -> None:
    answer = format_error(CAPTURED_QUERY[:20])
    assert answer == b"\x1c\x1a\x81\x01" + bytes(8)
    assert format_error(CAPTURED_QUERY[:11]) is None
    assert format_error(b"\0\0\x80\0" + bytes(8)) is None


@pytest.mark.parametrize("text", ["a..b", "x" * 64, ".a", "a." * 128])
def test_texts_that_are_no_domain_names_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_name(text)


def test_the_root_is_a_dot() -> None:
    assert parse_name(".") == ()
    assert name_text(()) == "."
    assert name_text((b"a.b", b"\x00")) == "a\\046b.\\000."


@given(st.lists(st.binary(max_size=255), max_size=5))
def test_character_strings_survive(strings: list[bytes]) -> None:
    assert read_strings(encode_strings(strings)) == strings


def test_a_character_string_over_its_end_is_refused() -> None:
    with pytest.raises(DnsFormatError):
        read_strings(b"\x05abc")


def test_the_target_of_a_cname_is_written_in_full() -> None:
    body = encode_name((b"a", b"b")) + struct.pack(">HHIH", 5, 1, 1, 4) + b"\x01c\xc0\x0e"
    message = struct.pack(">6H", 0, 0x8000, 0, 1, 0, 0) + body
    assert parse_answers(message)[0].data == encode_name((b"c", b"b"))
    longer = body.replace(b"\0\4\x01c\xc0\x0e", b"\0\5\x01c\xc0\x0e\0")
    with pytest.raises(DnsFormatError):
        parse_answers(struct.pack(">6H", 0, 0x8000, 0, 1, 0, 0) + longer)


QUESTION = encode_query(parse_name("a.example"), RecordType.TXT, 7)


def answer(code: ResponseCode = ResponseCode.NOERROR, *, truncated: bool = False) -> bytes:
    query = parse_query(QUESTION)
    other = ResourceRecord(query.name, RecordType.A, 1, b"abcd")
    text = ResourceRecord(query.name, RecordType.TXT, 1, b"\1x")
    records = () if truncated or code else (other, text)
    return encode_response(query, Response(code, records, truncated=truncated), 512)


def test_the_answer_to_a_question_has_the_records_of_its_type() -> None:
    code, [record] = answers_to(QUESTION, answer())
    assert code == ResponseCode.NOERROR and record.data == b"\1x"
    assert answers_to(QUESTION, answer(ResponseCode.NXDOMAIN)) == (ResponseCode.NXDOMAIN, ())


@pytest.mark.parametrize(
    "message",
    [
        b"\0\x08" + answer()[2:],
        QUESTION,
        answer(truncated=True),
        answer().replace(b"\1a", b"\1b"),
        answer()[:-1],
        b"",
    ],
    ids=["another id", "a question", "cut short", "another name", "cut off", "empty"],
)
def test_what_is_no_answer_to_the_question_is_refused(message: bytes) -> None:
    with pytest.raises(DnsFormatError):
        answers_to(QUESTION, message)


@given(st.binary(max_size=200))
def test_any_answer_is_read_or_refused(data: bytes) -> None:
    for message in (data, QUESTION[:2] + data):
        try:
            answers_to(QUESTION, message)
        except DnsFormatError:
            pass
