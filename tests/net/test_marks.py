import socket
from typing import cast

from tunnel_rs.net.marks import set_mark


class Options:
    def __init__(self) -> None:
        self.set: list[tuple[int, int, int]] = []

    def setsockopt(self, level: int, option: int, value: int) -> None:
        self.set.append((level, option, value))


def test_the_mark_is_an_option_of_the_socket() -> None:
    options = Options()
    set_mark(cast(socket.socket, options), 0x7472)
    assert options.set == [(socket.SOL_SOCKET, 36, 0x7472)]
