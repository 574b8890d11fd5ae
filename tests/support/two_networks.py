"""Two networks that reach a third one and not each other: namespaces joined by wires (root, Linux).

`left` and `right` each have a wire to `hub`, which forwards nothing. HUB is an address of the hub
that both reach. Programs run inside by `inside`; sockets are made inside by `socket_in` and then
belong there for good, whichever process or loop uses them.
"""

import asyncio
import ctypes
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import pytest

HUB = "10.77.0.1"
RESOLVER = "10.77.0.53"
"""Another address of the hub: the resolver that both networks are told of."""
ROUTERS = "10.77.1.1", "10.77.2.1"
MACHINES = "10.77.1.2", "10.77.2.2"
"""Of the left and of the right network."""

_CLONE_NEWNET = 0x40000000
_ETH_P_ALL = 0x0003
_IPV4, _IPV6 = 0x0800, 0x86DD

T = TypeVar("T")

needs_two_networks = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0 or shutil.which("ip") is None,
    reason="needs Linux, root and iproute2",
)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@dataclass(frozen=True)
class Namespace:
    """One network namespace, by its name."""

    name: str

    def inside(self, *command: str | Path) -> Sequence[str]:
        """The command line that runs `command` in here, with the resolver of here."""
        return ("ip", "netns", "exec", self.name, *map(str, command))

    def run(self, *command: str) -> None:
        subprocess.run(self.inside(*command), check=True, capture_output=True, text=True)

    def call(self, function: Callable[[], T]) -> T:
        """What `function` returns when run by a thread in here."""
        results: list[T] = []
        errors: list[BaseException] = []

        def work() -> None:
            try:
                with open(f"/run/netns/{self.name}") as file:
                    libc = ctypes.CDLL(None, use_errno=True)
                    if libc.setns(file.fileno(), _CLONE_NEWNET):
                        raise OSError(ctypes.get_errno(), "setns")
                results.append(function())
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return results[0]

    def connect(self, port: int) -> socket.socket:
        """A TCP connection to a port of this namespace's loopback."""
        sock = self.call(lambda: socket.create_connection(("127.0.0.1", port), timeout=5))
        sock.setblocking(False)
        return sock

    def listen(self, ip: str = "127.0.0.1", port: int = 0) -> socket.socket:
        """A TCP listener."""
        sock = self.call(lambda: socket.create_server((ip, port)))
        sock.setblocking(False)
        return sock

    def udp(self, ip: str, port: int) -> socket.socket:
        """A bound UDP socket."""
        sock = self.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        sock.setblocking(False)
        sock.bind((ip, port))
        return sock

    def drop_udp(self) -> None:
        """From now on no UDP goes out or in, loopback included. Skips the test without nft."""
        if shutil.which("nft") is None:
            pytest.skip("needs nft, which is not installed here")
        try:
            self.run("nft", "add table inet blocked")
            for way in ("input", "output"):
                hook = f"{{ type filter hook {way} priority 0 ; }}"
                self.run("nft", f"add chain inet blocked {way} {hook}")
                self.run("nft", f"add rule inet blocked {way} meta l4proto udp drop")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"nft does not work here: {error.stderr.strip()}")


@dataclass(frozen=True)
class Networks:
    hub: Namespace
    left: Namespace
    right: Namespace


@contextmanager
def two_networks() -> Iterator[Networks]:
    """All three namespaces, gone on leaving. Skips the test where there can be none."""
    with ExitStack() as stack:
        made = [_namespace(stack, part) for part in ("hub", "left", "right")]
        networks = Networks(*made)
        for address in (HUB, RESOLVER):
            _ip("-n", networks.hub.name, "address", "add", f"{address}/32", "dev", "lo")
        networks.hub.run("sysctl", "-qw", "net.ipv4.ip_forward=0")
        for number, side in ((1, networks.left), (2, networks.right)):
            _join(networks.hub, side, f"10.77.{number}")
        yield networks


def _namespace(stack: ExitStack, part: str) -> Namespace:
    name = f"{part}-{uuid4().hex[:6]}"
    try:
        _ip("netns", "add", name)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr.strip()}")
    stack.callback(_ip, "netns", "del", name)
    _ip("-n", name, "link", "set", "lo", "up")
    settings = Path("/etc/netns", name)
    settings.mkdir(parents=True)
    stack.callback(shutil.rmtree, settings)
    (settings / "resolv.conf").write_text(f"nameserver {RESOLVER}\n")
    return Namespace(name)


def _join(hub: Namespace, side: Namespace, prefix: str) -> None:
    here, there = f"h{uuid4().hex[:8]}", f"s{uuid4().hex[:8]}"
    _ip("link", "add", here, "netns", hub.name, "type", "veth", "peer", there, "netns", side.name)
    for namespace, device, last in ((hub, here, "1"), (side, there, "2")):
        _ip("-n", namespace.name, "address", "add", f"{prefix}.{last}/24", "dev", device)
        _ip("-n", namespace.name, "link", "set", device, "up")
    _ip("-n", side.name, "route", "add", "default", "via", f"{prefix}.1")


class Watch:
    """Notes where everything goes that leaves a namespace by its wire."""

    def __init__(self, namespace: Namespace) -> None:
        self.destinations: set[tuple[str, int]] = set()
        """Address, and port (0 where there is none)."""
        kind = socket.SOCK_RAW
        self._sock = namespace.call(
            lambda: socket.socket(socket.AF_PACKET, kind, socket.htons(_ETH_P_ALL))
        )
        self._sock.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._sock, self._read)

    def _read(self) -> None:
        while True:
            try:
                frame, where = self._sock.recvfrom(65536)
            except BlockingIOError:
                return
            if where[0] != "lo" and where[2] == socket.PACKET_OUTGOING:
                self._note(frame[14:], where[1])

    def _note(self, packet: bytes, protocol: int) -> None:
        if protocol == _IPV4:
            carried, address = packet[9], socket.inet_ntop(socket.AF_INET, packet[16:20])
            rest = packet[4 * (packet[0] & 0x0F) :]
        elif protocol == _IPV6:
            carried, address = packet[6], socket.inet_ntop(socket.AF_INET6, packet[24:40])
            rest = packet[40:]
        else:
            return  # ARP
        has_ports = carried in (socket.IPPROTO_TCP, socket.IPPROTO_UDP)
        port = int.from_bytes(rest[2:4], "big") if has_ports else 0
        self.destinations.add((address, port))

    @property
    def beyond_the_link(self) -> set[tuple[str, int]]:
        """Destinations that are not groups of the local network (multicast DNS and the like)."""
        return {where for where in self.destinations if not ip_address(where[0]).is_multicast}

    def close(self) -> None:
        self._loop.remove_reader(self._sock)
        self._sock.close()


async def serve_echo(listener: socket.socket) -> None:
    """Send back what comes to a listener, until cancelled."""
    loop = asyncio.get_running_loop()

    async def echo(sock: socket.socket) -> None:
        with sock:
            while data := await loop.sock_recv(sock, 65536):
                await loop.sock_sendall(sock, data)

    async with asyncio.TaskGroup() as group:
        while True:
            sock, _ = await loop.sock_accept(listener)
            sock.setblocking(False)
            group.create_task(echo(sock))


async def said_back(sock: socket.socket, words: bytes, *, within: float = 10.0) -> float:
    """Seconds until `words` have come back over a connection to an echo service."""
    loop: Any = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.timeout(within):
        await loop.sock_sendall(sock, words)
        back = b""
        while len(back) < len(words):
            chunk = await loop.sock_recv(sock, 65536)
            assert chunk, "the connection ended"
            back += chunk
    assert back == words
    return float(loop.time() - began)
