"""Tests of `tunnel_rs.net.tun_linux` on a pair of sockets; `netns.test_vpn_netns` has real
devices."""

import asyncio
import errno
import os
import socket
import sys

import pytest
from tests.support.ip_packets import udp
from tests.support.sockets import until

from tunnel_rs.errors import LocalError
from tunnel_rs.proto.vpn_frames import Offloaded
from tunnel_rs.proto.vpn_offload import NO_OFFLOAD

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
if sys.platform == "linux":
    from tunnel_rs.net import tun_linux
    from tunnel_rs.net.tun_linux import LinuxTun, create

PACKET = udp("10.7.0.2", "10.7.0.1", (1, 2), b"hello")
SUPER = b"\x01\x01\0\0\xe8\x03\x14\0\x10\0"


class Bench:
    """A device whose descriptor is one end of a pair of datagram sockets."""

    def __init__(self) -> None:
        ours, self.system = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        ours.setblocking(False)
        self.system.setblocking(False)
        self.batches: list[list[Offloaded]] = []
        self.lost: list[OSError] = []
        self.tun = LinuxTun(ours.detach(), "tun-test")

    def start(self) -> None:
        self.tun.start(self.batches.append, self.lost.append)

    def close(self) -> None:
        self.tun.close()
        self.tun.close()
        self.system.close()


async def test_what_waits_is_delivered_as_one_batch() -> None:
    bench = Bench()
    for _ in range(3):
        bench.system.send(NO_OFFLOAD + PACKET)
    bench.start()
    await until(lambda: bool(bench.batches))
    assert bench.batches == [[(NO_OFFLOAD, PACKET)] * 3]
    assert all(header is NO_OFFLOAD for header, _ in bench.batches[0])
    bench.close()


async def test_a_batch_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tun_linux, "MAX_BATCH", 2)
    bench = Bench()
    for _ in range(5):
        bench.system.send(NO_OFFLOAD + PACKET)
    bench.start()
    await until(lambda: sum(map(len, bench.batches)) == 5)
    assert [len(batch) for batch in bench.batches] == [2, 2, 1]
    bench.close()


async def test_headers_of_super_packets_are_kept_and_hints_dropped() -> None:
    bench = Bench()
    for header in (SUPER, b"\x02" + bytes(9), b"\x03" + SUPER[1:], b"\x01" + bytes(9)):
        bench.system.send(header + PACKET)
    bench.start()
    await until(lambda: bool(bench.batches))
    [[first, second, third, fourth]] = bench.batches
    assert first == third == (SUPER, PACKET)
    assert second[0] is NO_OFFLOAD
    assert fourth[0] == b"\x01" + bytes(9)
    bench.close()


async def test_packets_are_written_behind_their_header() -> None:
    bench = Bench()
    assert bench.tun.write(SUPER, PACKET)
    assert bench.system.recv(200) == SUPER + PACKET
    bench.system.close()
    assert not bench.tun.write(SUPER, PACKET)
    bench.close()


async def test_while_paused_nothing_is_read() -> None:
    bench = Bench()
    bench.start()
    bench.tun.pause_reading()
    bench.system.send(NO_OFFLOAD + PACKET)
    for _ in range(5):
        await asyncio.sleep(0)
    assert bench.batches == []
    bench.tun.resume_reading()
    await until(lambda: bool(bench.batches))
    bench.close()


async def test_what_has_come_can_be_read_without_waiting() -> None:
    bench = Bench()
    bench.tun.read_now()
    bench.start()
    bench.system.send(NO_OFFLOAD + PACKET)
    bench.tun.read_now()
    assert bench.batches == [[(NO_OFFLOAD, PACKET)]]
    bench.system.send(NO_OFFLOAD + PACKET)
    bench.tun.pause_reading()
    bench.tun.read_now()
    assert len(bench.batches) == 1
    bench.close()
    bench.tun.read_now()


async def test_after_closing_nothing_happens() -> None:
    bench = Bench()
    bench.start()
    bench.close()
    bench.tun.resume_reading()
    bench.tun.set_offload(True)
    assert not bench.tun.write(NO_OFFLOAD, PACKET)


async def test_a_device_that_fails_is_told_and_read_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench()

    def broken(fd: int, size: int) -> bytes:
        raise OSError(errno.EBADFD, "File descriptor in bad state")

    monkeypatch.setattr(tun_linux.os, "read", broken)
    bench.start()
    bench.system.send(b"x")
    await until(lambda: bool(bench.lost))
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(bench.lost) == 1
    bench.close()


async def test_offloads_fall_back_to_what_the_kernel_has(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def ioctl(fd: int, request: int, flags: int) -> int:
        asked.append(flags)
        if flags & 0x60:
            raise OSError(errno.EINVAL, "no UDP")
        return 0

    bench = Bench()
    monkeypatch.setattr(tun_linux.fcntl, "ioctl", ioctl)
    for wanted in (True, True, False):
        bench.tun.set_offload(wanted)
    assert asked == [0x67, 0x07, 0]
    bench.close()


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (errno.ENOENT, "modprobe tun"),
        (errno.EACCES, "exec -- COMMAND"),
        (errno.EMFILE, "Too many open files"),
    ],
)
def test_why_the_device_cannot_be_opened(
    number: int, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str, flags: int) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(tun_linux.os, "open", refuse)
    with pytest.raises(LocalError, match=text):
        create()


@pytest.mark.parametrize(
    ("number", "text"), [(errno.EPERM, "CAP_NET_ADMIN"), (errno.EBUSY, "in use")]
)
def test_why_a_device_cannot_be_made(
    number: int, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    closed: list[int] = []
    monkeypatch.setattr(tun_linux.os, "open", lambda path, flags: 9999)
    monkeypatch.setattr(tun_linux.os, "close", closed.append)
    monkeypatch.setattr(tun_linux.fcntl, "ioctl", refuse)
    with pytest.raises(LocalError, match=text):
        create("vpn0")
    assert closed == [9999]


@pytest.mark.parametrize("name", ["", "a" * 16, "ä" * 8])
def test_names_that_are_too_long_are_refused(name: str) -> None:
    with pytest.raises(LocalError, match="1 to 15"):
        create(name)
