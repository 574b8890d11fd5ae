"""Bind local TCP and UDP sockets to what a user named: an address, a name, `localhost`."""

import errno
import os
import socket
from contextlib import ExitStack

from tunnel_rs.errors import LocalError, TargetError
from tunnel_rs.net.resolver import Resolve
from tunnel_rs.values import HostPort, SocketAddr

LOOPBACK = ("127.0.0.1", "::1")
_PORT_ZERO_TRIES = 16
_NO_SUCH_FAMILY = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


async def bind(
    where: HostPort, kind: socket.SocketKind, resolve: Resolve
) -> tuple[socket.socket, ...]:
    """Non-blocking sockets bound to every address of `where`, all on the same port.

    `localhost` means both families, as far as this machine has them. Port 0 picks a free port
    that is the same for all. Raises LocalError that says what to do.
    """
    ips = LOOPBACK if where.host == "localhost" else await _resolved(where, resolve)
    tries = _PORT_ZERO_TRIES if where.port == 0 and len(ips) > 1 else 1
    for remaining in reversed(range(tries)):
        try:
            return _bind_all(ips, where.port, kind)
        except OSError as error:
            # The port picked for the first address may be taken on the second: pick another.
            if error.errno != errno.EADDRINUSE or not remaining:
                raise LocalError(f"cannot listen on {where}: {listen_advice(error)}") from None
    raise AssertionError("unreachable")


def local_address(sock: socket.socket) -> SocketAddr:
    """Where a socket is bound."""
    ip, port = sock.getsockname()[:2]
    return SocketAddr(ip, port)


def peer_address(sock: socket.socket) -> SocketAddr:
    """Where a socket is connected to. Raises OSError when it no longer is."""
    ip, port = sock.getpeername()[:2]
    return SocketAddr(ip, port)


async def _resolved(where: HostPort, resolve: Resolve) -> tuple[str, ...]:
    try:
        return tuple(await resolve(where.host))
    except TargetError as error:
        raise LocalError(f"cannot listen on {where}: {error}") from None


def _bind_all(
    ips: tuple[str, ...], port: int, kind: socket.SocketKind
) -> tuple[socket.socket, ...]:
    """One socket for each address that exists here. Raises OSError, with nothing left open."""
    bound: list[socket.socket] = []
    missing: OSError | None = None
    with ExitStack() as undo:
        for ip in ips:
            try:
                sock = _bound_socket(ip, port, kind)
            except OSError as error:
                if error.errno not in _NO_SUCH_FAMILY:
                    raise
                missing = error
                continue
            undo.callback(sock.close)
            bound.append(sock)
            port = sock.getsockname()[1]
        if not bound and missing is not None:
            raise missing
        undo.pop_all()
    return tuple(bound)


def _bound_socket(ip: str, port: int, kind: socket.SocketKind) -> socket.socket:
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    sock = socket.socket(family, kind)
    try:
        sock.setblocking(False)
        if family == socket.AF_INET6 and ip != "::":
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        elif family == socket.AF_INET6:
            # Who writes [::] means every address, IPv4 included, wherever the system can do it.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        if kind == socket.SOCK_STREAM and os.name == "posix":
            # Rebind while old connections linger. On Windows the option means something else:
            # two programs could share the port.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((ip, port))
    except BaseException:
        sock.close()
        raise
    return sock


def listen_advice(error: OSError) -> str:
    """What to do about an address that cannot be listened on."""
    match error.errno:
        case errno.EADDRINUSE:
            return "another program uses the port; stop it, or choose another port (0 = any free)"
        case errno.EACCES | errno.EPERM:
            return "no permission; choose a port above 1023 or run with more rights"
        case errno.EADDRNOTAVAIL | errno.EAFNOSUPPORT:
            return "this machine does not have the address; name one of its own, or localhost"
        case _:
            return (error.strerror or str(error)).lower()
