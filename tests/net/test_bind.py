"""Tests of `tunnel_rs.net.bind`."""

import errno
import socket
from contextlib import ExitStack

import pytest

from tunnel_rs.errors import LocalError, TargetError
from tunnel_rs.net import bind as bind_module
from tunnel_rs.net.bind import bind, local_address
from tunnel_rs.net.resolver import SystemResolver
from tunnel_rs.values import HostPort

KINDS = pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])


@KINDS
async def test_localhost_binds_both_families_to_the_same_free_port(
    kind: socket.SocketKind,
) -> None:
    with ExitStack() as cleanup:
        sockets = await bind(HostPort("localhost", 0), kind, SystemResolver())
        for sock in sockets:
            cleanup.enter_context(sock)
        addresses = [local_address(sock) for sock in sockets]
        assert [address.ip for address in addresses] == ["127.0.0.1", "::1"]
        assert addresses[0].port == addresses[1].port != 0


async def test_another_port_is_picked_when_the_second_family_has_it_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = bind_module._bound_socket
    taken: list[int] = []

    def once_taken(ip: str, port: int, kind: socket.SocketKind) -> socket.socket:
        if ip == "::1" and not taken:
            taken.append(port)
            raise OSError(errno.EADDRINUSE, "Address already in use")
        return real(ip, port, kind)

    monkeypatch.setattr(bind_module, "_bound_socket", once_taken)
    sockets = await bind(HostPort("localhost", 0), socket.SOCK_STREAM, SystemResolver())
    assert len(taken) == 1
    assert len({local_address(sock).port for sock in sockets}) == 1
    for sock in sockets:
        sock.close()


async def test_localhost_works_on_a_machine_without_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    real = bind_module._bound_socket

    def no_ipv6(ip: str, port: int, kind: socket.SocketKind) -> socket.socket:
        if ":" in ip:
            raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
        return real(ip, port, kind)

    monkeypatch.setattr(bind_module, "_bound_socket", no_ipv6)
    (sock,) = await bind(HostPort("localhost", 0), socket.SOCK_STREAM, SystemResolver())
    with sock:
        assert local_address(sock).ip == "127.0.0.1"


@KINDS
async def test_a_port_in_use_is_one_line_that_names_it_and_says_what_to_do(
    kind: socket.SocketKind,
) -> None:
    (first,) = await bind(HostPort("127.0.0.1", 0), kind, SystemResolver())
    with first:
        if kind == socket.SOCK_STREAM:
            first.listen()
        where = HostPort("127.0.0.1", local_address(first).port)
        with pytest.raises(LocalError) as caught:
            await bind(where, kind, SystemResolver())
    assert str(caught.value) == (
        f"cannot listen on {where}: another program uses the port; stop it, or choose another "
        "port (0 = any free)"
    )


async def test_an_address_of_another_machine_is_explained() -> None:
    with pytest.raises(LocalError, match=r"192\.0\.2\.7:0: this machine does not have the address"):
        await bind(HostPort("192.0.2.7", 0), socket.SOCK_STREAM, SystemResolver())


async def test_a_name_that_cannot_be_resolved_is_a_local_error() -> None:
    async def resolve(host: str) -> list[str]:
        raise TargetError(f"{host}: cannot be resolved")

    with pytest.raises(LocalError, match=r"on no\.example:0: no\.example: cannot be resolved"):
        await bind(HostPort("no.example", 0), socket.SOCK_STREAM, resolve)


async def test_missing_permission_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(ip: str, port: int, kind: socket.SocketKind) -> socket.socket:
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(bind_module, "_bound_socket", denied)
    with pytest.raises(LocalError, match="no permission; choose a port above 1023"):
        await bind(HostPort("127.0.0.1", 80), socket.SOCK_STREAM, SystemResolver())


async def test_the_unspecified_ipv6_address_takes_ipv4_too() -> None:
    (sock,) = await bind(HostPort("::", 0), socket.SOCK_STREAM, SystemResolver())
    with sock, socket.socket() as client:
        sock.listen()
        client.connect(("127.0.0.1", local_address(sock).port))
