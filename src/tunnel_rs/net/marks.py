"""Marks on packets of our own, by which a VPN on this machine lets them pass (Linux)."""

import socket

_SO_MARK = 36  # asm-generic/socket.h; not in every Python's socket module


def set_mark(sock: socket.socket, mark: int) -> None:
    """What `sock` sends carries `mark`. Set it before the socket is connected: that chooses its
    address by the routes. Raises OSError without CAP_NET_ADMIN."""
    sock.setsockopt(socket.SOL_SOCKET, _SO_MARK, mark)
