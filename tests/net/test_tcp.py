"""Tests of `tunnel_rs.net.tcp`."""

import asyncio
import errno
import gc
import socket
from contextlib import closing

import pytest

from tunnel_rs.errors import LocalError, TargetError
from tunnel_rs.net import tcp
from tunnel_rs.net.resolver import SystemResolver
from tunnel_rs.net.tcp import dial, listen, reset
from tunnel_rs.values import HostPort


def closed_port() -> int:
    """A port on 127.0.0.1 that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def listening(ip: str = "127.0.0.1", port: int = 0) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET)
    sock.bind((ip, port))
    sock.listen()
    return sock


class ScriptedConnect:
    """Replaces single attempts: connects, fails, or hangs, by address."""

    def __init__(self, outcomes: dict[str, OSError | str]) -> None:
        self.outcomes = outcomes
        self.started: list[str] = []
        self.cancelled: list[str] = []
        self.sockets: dict[str, socket.socket] = {}

    async def __call__(self, ip: str, port: int) -> socket.socket:
        self.started.append(ip)
        outcome = self.outcomes[ip]
        if isinstance(outcome, OSError):
            raise outcome
        if outcome == "hangs":
            try:
                await asyncio.Event().wait()
            finally:
                self.cancelled.append(ip)
        self.sockets[ip] = socket.socket()
        return self.sockets[ip]


async def test_dialling_connects_and_gives_a_non_blocking_socket() -> None:
    with listening() as server:
        with await dial(["127.0.0.1"], server.getsockname()[1], timeout=5) as sock:
            assert sock.getblocking() is False
            assert sock.getpeername() == server.getsockname()


async def test_the_second_address_is_tried_when_the_first_refuses() -> None:
    with listening("127.0.0.2") as server:
        port = server.getsockname()[1]
        with await dial(["127.0.0.1", "127.0.0.2"], port, timeout=5) as sock:
            assert sock.getpeername()[0] == "127.0.0.2"


async def test_a_silent_address_delays_the_next_one_by_the_attempt_delay_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connect = ScriptedConnect({"192.0.2.1": "hangs", "192.0.2.2": "answers"})
    monkeypatch.setattr(tcp, "_connect", connect)
    loop = asyncio.get_running_loop()
    began = loop.time()
    with await dial(["192.0.2.1", "192.0.2.2"], 80, timeout=5, attempt_delay=0.02) as sock:
        assert 0.02 <= loop.time() - began < 1
        assert sock is connect.sockets["192.0.2.2"]
    assert connect.cancelled == ["192.0.2.1"]


async def test_when_two_answer_together_the_loser_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connect = ScriptedConnect({"192.0.2.1": "answers", "192.0.2.2": "answers"})
    monkeypatch.setattr(tcp, "_connect", connect)
    with await dial(["192.0.2.1", "192.0.2.2"], 80, timeout=5, attempt_delay=0) as winner:
        losers = [sock for sock in connect.sockets.values() if sock is not winner]
        assert all(sock.fileno() == -1 for sock in losers)


async def test_the_error_names_each_address_and_why(monkeypatch: pytest.MonkeyPatch) -> None:
    connect = ScriptedConnect(
        {
            "192.0.2.1": OSError(errno.ECONNREFUSED, "Connection refused"),
            "2001:db8::1": OSError(errno.ENETUNREACH, "Network is unreachable"),
            "192.0.2.2": OSError(errno.EMFILE, "Too many open files"),
            "192.0.2.3": "hangs",
        }
    )
    monkeypatch.setattr(tcp, "_connect", connect)
    with pytest.raises(TargetError) as caught:
        await dial(list(connect.outcomes), 80, timeout=0.05)
    assert str(caught.value) == (
        "cannot connect: 192.0.2.1:80 refused the connection; [2001:db8::1]:80 is unreachable; "
        "192.0.2.2:80 failed (too many open files); 192.0.2.3:80 no answer in 0.05 s"
    )


async def test_a_refused_connection_on_a_real_socket_is_told_as_refused() -> None:
    port = closed_port()
    with pytest.raises(TargetError, match=rf"127\.0\.0\.1:{port} refused the connection"):
        await dial(["127.0.0.1"], port, timeout=5)


async def test_no_address_is_an_error_not_a_hang() -> None:
    with pytest.raises(TargetError, match="no address to try"):
        await dial([], 80, timeout=5)


async def test_cancelling_a_dial_leaves_no_socket_open(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[socket.socket] = []
    real = socket.socket

    def counted(*args: int) -> socket.socket:
        opened.append(real(*args))
        return opened[-1]

    async def never(sock: socket.socket, address: tuple[str, int]) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(socket, "socket", counted)
    monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", never)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await dial(["192.0.2.1", "192.0.2.2"], 80, timeout=5, attempt_delay=0)
    assert len(opened) == 2
    assert all(sock.fileno() == -1 for sock in opened)


async def test_a_connection_that_met_itself_counts_as_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    port = closed_port()
    loop = asyncio.get_running_loop()

    async def from_the_same_port(sock: socket.socket, address: tuple[str, int]) -> None:
        sock.bind(address)
        sock.setblocking(True)
        sock.connect(address)

    monkeypatch.setattr(loop, "sock_connect", from_the_same_port)
    with pytest.raises(TargetError, match="refused the connection"):
        await dial(["127.0.0.1"], port, timeout=5)


async def test_a_listener_hands_over_accepted_sockets_on_every_address() -> None:
    accepted: asyncio.Queue[socket.socket] = asyncio.Queue()
    listener = await listen(HostPort("localhost", 0), accepted.put_nowait, SystemResolver())
    with closing(listener):
        assert [address.ip for address in listener.addresses] == ["127.0.0.1", "::1"]
        for address in listener.addresses:
            with socket.create_connection((address.ip, address.port)) as client:
                with await accepted.get() as sock:
                    assert sock.getpeername()[:2] == client.getsockname()[:2]
                    assert sock.getblocking() is False


async def test_a_closed_listener_refuses_new_connections() -> None:
    listener = await listen(HostPort("127.0.0.1", 0), lambda sock: None, SystemResolver())
    listener.close()
    listener.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", listener.addresses[0].port))


async def test_a_port_in_use_is_told_before_anything_listens() -> None:
    with listening() as server:
        where = HostPort("127.0.0.1", server.getsockname()[1])
        with pytest.raises(LocalError, match=rf"cannot listen on {where}: another program uses"):
            await listen(where, lambda sock: None, SystemResolver())


async def test_running_out_of_descriptors_pauses_accepting_instead_of_spinning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Exhausted:
        """A listening socket whose accept fails until descriptors are free again."""

        def __init__(self, sock: socket.socket) -> None:
            self.sock, self.failures = sock, 0
            self.fileno, self.getsockname, self.close = sock.fileno, sock.getsockname, sock.close

        def accept(self) -> tuple[socket.socket, object]:
            if self.failures == 0:
                self.failures += 1
                raise OSError(errno.EMFILE, "Too many open files")
            return self.sock.accept()

    monkeypatch.setattr(tcp, "_ACCEPT_PAUSE", 0.01)
    server = listening()
    server.setblocking(False)
    exhausted = Exhausted(server)
    accepted: asyncio.Queue[socket.socket] = asyncio.Queue()
    listener = tcp.TcpListener([exhausted], accepted.put_nowait)  # type: ignore[list-item]
    with closing(listener), socket.create_connection(server.getsockname()):
        (await accepted.get()).close()
    assert exhausted.failures == 1


async def test_resetting_a_socket_shows_as_a_reset_at_the_other_end() -> None:
    with listening() as server, socket.create_connection(server.getsockname()) as client:
        sock, _ = server.accept()
        reset(sock)
        with pytest.raises(ConnectionResetError):
            client.recv(1)


async def test_nothing_is_left_open_by_a_finished_dial() -> None:
    with listening() as server:
        (await dial(["127.0.0.1"], server.getsockname()[1], timeout=5)).close()
    gc.collect()  # a leaked socket would warn, and warnings are errors here
