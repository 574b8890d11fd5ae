"""A test runtime without mercy: no route out, nothing left behind, no quiet skip in CI.

* A test that sends to, connects to or looks up anything but this machine fails, also when the code
  under test swallows the refusal. Tests marked `netns` run their traffic in namespaces of their
  own and are exempt. (The guard sees Python's sockets and `getaddrinfo`; resolvers in C, names
  given to `socket.connect` itself, and peers in other processes are outside it.)
* As root on Linux the whole run moves into a network namespace of its own, with loopback and
  nothing else, so that the kernel holds the programs that tests start, and iroh's search for a
  router, to the same rule.
* A test that ends with a task running or a socket open fails.
* With CI set, a skip fails with its reason, unless the reason is one of `ALLOWED_SKIPS`.

Warnings are errors and asyncio runs in debug mode: `pyproject.toml` says so.
"""

import asyncio
import ctypes
import inspect
import os
import socket
import struct
import sys
import weakref
from collections.abc import AsyncIterator, Generator
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest

ALLOWED_SKIPS = (
    "only on Windows",
    "only on macOS",
    # Reference programs from another language's registry, which take a quarter of an hour to build.
    "iroh-relay is not installed",
    "iroh-dns-server is not installed",
    # Some containers lack the device, whatever is installed.
    "no TUN device can be made here",
)
"""What a skip's reason must begin with to be accepted in CI, which is Linux."""


class RouteOutError(OSError):
    """Test code tried to leave this machine."""


class Watch:
    """What the running test does with sockets, told by the interpreter's audit events."""

    def __init__(self) -> None:
        self.guarding = False
        self.escapes: list[str] = []
        self.sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()

    def audit(self, event: str, args: tuple[object, ...]) -> None:
        if not self.guarding or not event.startswith("socket."):
            return
        if event == "socket.__new__":
            self._created(args[0])
        elif event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
            if not stays_here(args[0], args[1]):
                self._refuse(f"{event} to {args[1]!r}")
        elif event == "socket.getaddrinfo" and not is_local_name(args[0]):
            self._refuse(f"look-up of {args[0]!r}")

    def _created(self, made: object) -> None:
        if isinstance(made, SOCKET):
            self.sockets.add(made)

    def _refuse(self, what: str) -> None:
        self.escapes.append(what)
        raise RouteOutError(f"the test runtime has no route out: {what}")

    def take_escapes(self) -> list[str]:
        escapes, self.escapes = self.escapes, []
        return escapes

    def take_open_sockets(self) -> list[str]:
        still_open = [repr(sock) for sock in self.sockets if sock.fileno() != -1]
        self.sockets.clear()
        return still_open


def is_local_name(host: object) -> bool:
    """Whether a look-up of `host` needs nobody else: an IP literal, `localhost`, the wildcard.

    Names under `.invalid` pass too: they are for tests and resolve nowhere (RFC 6761 section 6.4).
    """
    name = host.decode("ascii", "replace") if isinstance(host, bytes) else host
    if not isinstance(name, str) or name in ("", "localhost") or name.endswith(".invalid"):
        return True
    try:
        ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return True


def stays_here(sock: object, address: object) -> bool:
    """Whether a datagram or connection from `sock` to `address` cannot leave this machine."""
    internet = (socket.AF_INET, socket.AF_INET6)
    if not isinstance(sock, SOCKET) or sock.family not in internet:
        return True
    if not isinstance(address, tuple):  # sendmsg on a socket whose connect has been judged
        return True
    host = address[0]
    if not isinstance(host, str) or host in ("", "localhost"):
        return True
    try:
        ip = ip_address(host.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    if ip.is_multicast:
        return multicasts_on_loopback(sock, ip)
    if ip == BROADCAST:
        # The kernel refuses it unless the socket has asked for permission.
        return not sock.getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST)
    return ip.is_loopback or ip.is_unspecified


def multicasts_on_loopback(sock: socket.socket, group: IPv4Address | IPv6Address) -> bool:
    """Whether the socket has been told to send multicast through the loopback interface."""
    if isinstance(group, IPv4Address):
        chosen = sock.getsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, 4)
        return IPv4Address(chosen).is_loopback
    (index,) = struct.unpack(
        "@i", sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, 4)
    )
    return bool(index) and socket.if_indextoname(index).startswith("lo")


_WATCH = Watch()
sys.addaudithook(_WATCH.audit)


CLONE_NEWNET = 0x4000_0000  # sched.h
SIOCSIFFLAGS = 0x8914  # linux/sockios.h
IFF_UP = 1
BROADCAST = IPv4Address("255.255.255.255")
SOCKET = socket.socket  # a test may put something else in its place


def enter_own_network() -> bool:
    """Move this process into a new network namespace that has loopback alone.

    Only for root on Linux; elsewhere, and where the kernel refuses, nothing happens. Threads and
    processes started later are in it too, so it has to come early.
    """
    if sys.platform != "linux" or os.geteuid() != 0:
        return False
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
        return False
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", IFF_UP))
    return True


def pytest_configure(config: pytest.Config) -> None:
    enter_own_network()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that share something of the machine run in one process, in their order: the names of
    network namespaces, the one VPN client that a machine may run."""
    for item in items:
        if item.get_closest_marker("netns") is not None:
            item.add_marker(pytest.mark.xdist_group("machine"))


@pytest.fixture(autouse=True)
def _no_task_left(request: pytest.FixtureRequest) -> None:
    """Look for tasks after every coroutine test; a plain one is spared the event loop."""
    if inspect.iscoroutinefunction(getattr(request.function, "hypothesis", request.function)):
        request.getfixturevalue("_tasks_at_end")


@pytest.fixture
async def _tasks_at_end() -> AsyncIterator[None]:
    yield
    left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    if left:
        names = ", ".join(f"{task.get_name()} ({task.get_coro()})" for task in left)
        pytest.fail(f"the test ended with {len(left)} task(s) running: {names}", pytrace=False)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None]:
    _WATCH.take_escapes()
    _WATCH.take_open_sockets()
    _WATCH.guarding = item.get_closest_marker("netns") is None
    return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None]:
    """Judge the test once its fixtures, the event loop among them, are gone."""
    try:
        yield
    finally:
        _WATCH.guarding = False
    if escapes := _WATCH.take_escapes():
        pytest.fail(f"the test tried to leave this machine: {'; '.join(escapes)}", pytrace=False)
    if still_open := _WATCH.take_open_sockets():
        pytest.fail(f"the test left sockets open: {'; '.join(still_open)}", pytrace=False)


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if not os.environ.get("CI") or not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    reason = reason.removeprefix("Skipped: ")
    if not reason.startswith(ALLOWED_SKIPS):
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not accept: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _refuse_skip(report)
    return report
