"""Tests of `tunnel_rs.forward.targets`. How requests use it is tested with the server."""

import socket
from contextlib import closing
from ipaddress import ip_network

import pytest
from tests.support.forwarding import LOOPBACK, Resolver
from tests.support.sockets import TcpTarget, UdpTarget

from tunnel_rs.errors import TargetError
from tunnel_rs.forward.targets import Targets, parse_source
from tunnel_rs.proto.grants import UNLIMITED, Grant, Rule
from tunnel_rs.proto.policy import SourcePolicy
from tunnel_rs.values import Protocol, SocketAddr, SourceUrl


def targets(resolve: Resolver | None = None) -> Targets:
    return Targets(SourcePolicy(LOOPBACK, LOOPBACK), resolve or Resolver(), connect_timeout=5)


async def test_a_tcp_source_opens_a_connected_stream_socket() -> None:
    with closing(TcpTarget()) as target:
        sock, where = await targets().open(SourceUrl.parse(target.url))
        with sock:
            assert where == SocketAddr("127.0.0.1", target.port)
            assert sock.type == socket.SOCK_STREAM
            assert sock.getpeername() == ("127.0.0.1", target.port)


async def test_a_udp_source_opens_a_connected_datagram_socket() -> None:
    with closing(UdpTarget()) as target:
        sock, where = await targets().open(SourceUrl.parse(target.url))
        with sock:
            assert where == SocketAddr("127.0.0.1", target.port)
            assert sock.type == socket.SOCK_DGRAM
            assert sock.getpeername() == ("127.0.0.1", target.port)


async def test_only_allowed_addresses_of_a_udp_name_are_used() -> None:
    resolve = Resolver(dns_example=[["192.0.2.1", "127.0.0.3"]])
    sock, _ = await targets(resolve).open(SourceUrl.parse("udp://dns.example:53"))
    with sock:
        assert sock.getpeername() == ("127.0.0.3", 53)


async def test_a_name_without_allowed_addresses_is_refused_by_name() -> None:
    resolve = Resolver(far_example=[["192.0.2.1", "192.0.2.2"]])
    with pytest.raises(TargetError, match=r"^tcp://far\.example:1 is not among the sources"):
        await targets(resolve).open(SourceUrl.parse("tcp://far.example:1"))


def test_a_source_is_parsed() -> None:
    assert parse_source("udp://[::1]:53") == SourceUrl.parse("udp://[::1]:53")


def test_what_is_no_source_is_a_target_error() -> None:
    with pytest.raises(TargetError, match="not a source: .*must start with tcp:// or udp://"):
        parse_source("ftp://127.0.0.1:1")


async def test_a_grant_narrows_what_the_server_allows_by_network_and_port() -> None:
    grant = Grant(tcp=(Rule(ip_network("127.0.0.2/32"), 22, 80),), udp=())
    look = targets(Resolver(many_example=[["127.0.0.1", "127.0.0.2", "192.0.2.1"]] * 2))
    source = SourceUrl.parse("tcp://many.example:80")
    assert await look.allowed_addresses(source, grant) == ["127.0.0.2"]
    with pytest.raises(TargetError, match="not among the sources"):
        await look.allowed_addresses(SourceUrl.parse("tcp://many.example:81"), grant)
    with pytest.raises(TargetError, match="forwards no UDP"):
        await look.allowed_addresses(SourceUrl.parse("udp://many.example:80"), grant)


def test_what_was_dialled_before_is_judged_anew() -> None:
    look, there = targets(), SocketAddr("127.0.0.2", 80)
    assert look.still_allow(Protocol.TCP, there, UNLIMITED)
    assert not look.still_allow(Protocol.TCP, there, Grant(tcp=(Rule(None, 81, 81),)))
    assert not look.still_allow(Protocol.TCP, SocketAddr("192.0.2.1", 80), UNLIMITED)
