import socket
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from tests.support.relay_network import http_server

from tunnel_rs.errors import TargetError, UnreachableError
from tunnel_rs.net import marked_http
from tunnel_rs.net.marked_dns import MarkedDns
from tunnel_rs.net.marked_http import MarkedResolver, connector
from tunnel_rs.proto.dns_wire import Name, RecordType, ResourceRecord, name_text


class FakeDns(MarkedDns):
    """Answers from a table; None: nobody answers."""

    def __init__(self, table: dict[str, list[str]] | None) -> None:
        self.table = table

    async def ask(self, name: Name, kind: RecordType) -> tuple[ResourceRecord, ...]:
        if self.table is None:
            raise UnreachableError("no answer")
        version = 6 if kind is RecordType.AAAA else 4
        ips = map(ip_address, self.table.get(name_text(name), ()))
        return tuple(
            ResourceRecord(name, kind, 1, ip.packed) for ip in ips if ip.version == version
        )


class System:
    def __init__(self, *ips: str) -> None:
        self.ips = ips
        self.asked: list[str] = []

    async def __call__(self, host: str) -> list[str]:
        self.asked.append(host)
        if not self.ips:
            raise TargetError(f"{host}: cannot be resolved")
        return list(self.ips)


async def found(resolver: MarkedResolver, host: str = "r.example") -> Sequence[str]:
    return [result["host"] for result in await resolver.resolve(host, 443)]


async def test_addresses_come_from_the_dns_ipv6_first(tmp_path: Path) -> None:
    dns, system = FakeDns({"r.example.": ["192.0.2.1", "2001:db8::1"]}), System("192.0.2.99")
    resolver = MarkedResolver(dns, system=system, hosts=tmp_path / "none")
    [first, second] = await resolver.resolve("r.example", 443)
    assert (first["host"], first["family"], first["port"]) == ("2001:db8::1", socket.AF_INET6, 443)
    assert second["host"] == "192.0.2.1"
    only = await resolver.resolve("r.example", 443, socket.AF_INET)
    assert [result["host"] for result in only] == ["192.0.2.1"]
    assert system.asked == []
    await resolver.close()


async def test_the_hosts_file_comes_before_the_dns(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("# x\n192.0.2.7 other R.Example # here\nnot-an-address r.example\n\n")
    dns = FakeDns({"r.example.": ["192.0.2.1"]})
    assert await found(MarkedResolver(dns, system=System(), hosts=hosts)) == ["192.0.2.7"]


@pytest.mark.parametrize("host", ["printer", "not..a.name"])
async def test_what_the_dns_does_not_know_the_system_is_asked_for(
    host: str, tmp_path: Path
) -> None:
    system = System("192.0.2.99")
    resolver = MarkedResolver(FakeDns({}), system=system, hosts=tmp_path)
    assert await found(resolver, host) == ["192.0.2.99"]


async def test_without_any_answer_addresses_are_remembered(tmp_path: Path) -> None:
    dns, system = FakeDns({"r.example.": ["192.0.2.1"]}), System()
    resolver = MarkedResolver(dns, system=system, hosts=tmp_path)
    await found(resolver)
    dns.table = None
    assert await found(resolver) == ["192.0.2.1"]
    assert system.asked == []


async def test_what_nobody_knows_is_an_error_as_aiohttp_wants_it(tmp_path: Path) -> None:
    resolver = MarkedResolver(FakeDns(None), system=System(), hosts=tmp_path)
    with pytest.raises(OSError, match="cannot be resolved"):
        await found(resolver)


async def test_few_names_are_remembered(tmp_path: Path) -> None:
    resolver = MarkedResolver(FakeDns({}), system=System("192.0.2.1"), hosts=tmp_path)
    for number in range(200):
        await found(resolver, f"h{number}.example")
    assert len(resolver._remembered) == marked_http.MAX_REMEMBERED


@pytest.mark.parametrize("mark", [None, 9])
async def test_connections_carry_the_mark_if_there_is_one(
    mark: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks: list[int] = []
    monkeypatch.setattr(marked_http, "set_mark", lambda sock, mark: marks.append(mark))

    async def hello(_: web.BaseRequest) -> web.Response:
        return web.Response(text="hello")

    async with http_server(hello) as url:
        async with aiohttp.ClientSession(connector=connector(mark)) as session:
            async with session.get(url.ping_url) as answer:
                assert await answer.text() == "hello"
    assert marks == ([] if mark is None else [9])


async def test_a_connection_that_cannot_be_marked_is_not_made() -> None:
    async def never(_: web.BaseRequest) -> web.Response:
        raise AssertionError

    def refuse(sock: socket.socket, mark: int) -> None:
        raise PermissionError(1, "no")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(marked_http, "set_mark", refuse)
        async with http_server(never) as url:
            async with aiohttp.ClientSession(connector=connector(9)) as session:
                with pytest.raises((OSError, aiohttp.ClientError)):
                    await session.get(url.ping_url)
