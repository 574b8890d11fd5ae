"""Tests of `tunnel_rs.forward.targets`. How requests use it is tested with the server."""

import socket
from contextlib import closing

import pytest
from tests.support.forwarding import LOOPBACK, Resolver
from tests.support.sockets import TcpTarget, UdpTarget

from tunnel_rs.errors import TargetError
from tunnel_rs.forward.targets import Targets, parse_source
from tunnel_rs.proto.policy import SourcePolicy
from tunnel_rs.values import SourceUrl


def targets(resolve: Resolver | None = None) -> Targets:
    return Targets(SourcePolicy(LOOPBACK, LOOPBACK), resolve or Resolver(), connect_timeout=5)


async def test_a_tcp_source_opens_a_connected_stream_socket() -> None:
    with closing(TcpTarget()) as target:
        with await targets().open(SourceUrl.parse(target.url)) as sock:
            assert sock.type == socket.SOCK_STREAM
            assert sock.getpeername() == ("127.0.0.1", target.port)


async def test_a_udp_source_opens_a_connected_datagram_socket() -> None:
    with closing(UdpTarget()) as target:
        with await targets().open(SourceUrl.parse(target.url)) as sock:
            assert sock.type == socket.SOCK_DGRAM
            assert sock.getpeername() == ("127.0.0.1", target.port)


async def test_only_allowed_addresses_of_a_udp_name_are_used() -> None:
    resolve = Resolver(dns_example=[["192.0.2.1", "127.0.0.3"]])
    with await targets(resolve).open(SourceUrl.parse("udp://dns.example:53")) as sock:
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
