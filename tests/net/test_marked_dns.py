"""Tests of `tunnel_rs.net.marked_dns` against servers on loopback; only the mark is a stand-in."""

import socket
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from tests.support.discovery import no_such_name, scripted_dns, txt_answer

from tunnel_rs.errors import UnreachableError
from tunnel_rs.net import marked_dns
from tunnel_rs.net.marked_dns import MAX_SERVERS, MarkedDns, name_servers
from tunnel_rs.proto.dns_wire import (
    Query,
    RecordType,
    ResourceRecord,
    Response,
    ResponseCode,
    encode_response,
    parse_name,
    read_strings,
)

NAME = parse_name("a.example")


@pytest.fixture(autouse=True)
def marked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The marks that were set; setting one for real takes privileges."""
    marks: list[int] = []
    monkeypatch.setattr(marked_dns, "set_mark", lambda sock, mark: marks.append(mark))
    monkeypatch.setattr(marked_dns, "STAGGER", 0.02)
    yield marks


def resolver(port: int, *servers: str, timeout: float = 3.0) -> MarkedDns:
    return MarkedDns(7, servers=lambda: servers or ("127.0.0.1",), port=port, timeout=timeout)


async def test_records_of_the_type_asked_for_are_found_with_a_marked_question(
    marked: list[int],
) -> None:
    def script(query: Query, _: int) -> bytes:
        alias = ResourceRecord(query.name, RecordType.CNAME, 1, b"\1b\7example\0")
        text = ResourceRecord(parse_name("b.example"), RecordType.TXT, 1, b"\2hi")
        return encode_response(query, Response(ResponseCode.NOERROR, (alias, text)), 4096)

    async with scripted_dns(script) as (server, address):
        [record] = await resolver(address.port).ask(NAME, RecordType.TXT)
        assert read_strings(record.data) == [b"hi"]
        assert [query.name for query in server.queries] == [NAME]
        assert marked == [7]


async def test_a_name_that_does_not_exist_has_no_records() -> None:
    async with scripted_dns(lambda query, _: no_such_name(query)) as (_, address):
        assert await resolver(address.port).ask(NAME, RecordType.A) == ()


@pytest.mark.parametrize("bad", ["silence", "SERVFAIL", "another question", "cut short", "junk"])
async def test_what_is_no_answer_is_made_up_for_by_the_next_question(bad: str) -> None:
    def script(query: Query, number: int) -> bytes | None:
        if number > 0:
            return txt_answer(query, b"good")
        wrong: dict[str, bytes | None] = {
            "silence": None,
            "SERVFAIL": encode_response(query, Response(ResponseCode.SERVFAIL), 4096),
            "another question": txt_answer(_renamed(query), b"bad"),
            "cut short": encode_response(
                query, Response(ResponseCode.NOERROR, truncated=True), 4096
            ),
            "junk": b"\0" * 40,
        }
        return wrong[bad]

    async with scripted_dns(script) as (_, address):
        [record] = await resolver(address.port).ask(NAME, RecordType.TXT)
        assert read_strings(record.data) == [b"good"]


def _renamed(query: Query) -> Query:
    raw = query.raw_name.replace(b"\1a", b"\1z")
    return Query(query.id, query.flags, parse_name("z.example"), query.type, 1, raw, query.edns)


async def test_a_server_that_cannot_be_reached_is_passed_over() -> None:
    async with scripted_dns(lambda query, _: txt_answer(query, b"x")) as (_, address):
        dns = resolver(address.port, "::1", "127.0.0.1")
        assert len(await dns.ask(NAME, RecordType.TXT)) == 1


async def test_without_an_answer_the_name_and_the_time_are_told() -> None:
    async with scripted_dns(lambda *_: None) as (_, address):
        with pytest.raises(UnreachableError, match=r"for a\.example\. in 0\.1 s"):
            await resolver(address.port, timeout=0.1).ask(NAME, RecordType.A)


async def test_without_a_server_nothing_is_asked() -> None:
    with pytest.raises(UnreachableError, match="no DNS server"):
        await MarkedDns(7, servers=lambda: ()).ask(NAME, RecordType.A)


async def test_the_servers_of_the_start_are_asked_when_others_have_taken_their_place() -> None:
    def script(query: Query, _: int) -> bytes:
        data = ip_address("192.0.2.9").packed
        record = ResourceRecord(query.name, RecordType.A, 1, data)
        return encode_response(query, Response(ResponseCode.NOERROR, (record,)), 4096)

    servers = ["127.0.0.1"]
    async with scripted_dns(script) as (_, address):
        dns = MarkedDns(7, servers=lambda: tuple(servers), port=address.port, timeout=3)
        servers[:] = ["fe80::1"]
        assert len(await dns.ask(NAME, RecordType.A)) == 1


def test_servers_are_read_from_all_files_without_those_on_this_machine(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_text("# nameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver 127.0.0.53\n")
    second.write_text(
        "search x\nnameserver\nnameserver ::1\nnameserver x\nnameserver 192.0.2.2\n"
        "nameserver fe80::1%eth0\n"
    )
    found = name_servers((first, tmp_path / "none", second))
    assert found == ("192.0.2.2", "fe80::1%eth0")
    second.write_text("".join(f"nameserver 192.0.2.{n}\n" for n in range(100)))
    assert len(name_servers((second,))) == MAX_SERVERS


def test_a_socket_that_cannot_be_marked_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[socket.socket] = []

    def refuse(sock: socket.socket, mark: int) -> None:
        made.append(sock)
        raise PermissionError(1, "no")

    monkeypatch.setattr(marked_dns, "set_mark", refuse)
    with pytest.raises(PermissionError):
        marked_dns._socket("192.0.2.1", 7)
    assert made[0].fileno() == -1
