import asyncio
import socket
import sys

import pytest
from tests.support.ip_packets import udp
from tests.support.sockets import until

from tunnel_rs.errors import LocalError
from tunnel_rs.net.tun_darwin import DarwinTun, open_device
from tunnel_rs.proto.vpn_frames import Offloaded
from tunnel_rs.proto.vpn_offload import NO_OFFLOAD

V4, V6 = udp("10.7.0.2", "10.7.0.1", (1, 2)), udp("fd07::2", "fd07::1", (1, 2))


class Bench:
    """A device whose control socket is one end of a pair."""

    def __init__(self) -> None:
        ours, self.system = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        ours.setblocking(False)
        self.system.setblocking(False)
        self.packets: list[Offloaded] = []
        self.lost: list[OSError] = []
        self.tun = DarwinTun(ours, "utun4")

    def start(self) -> None:
        self.tun.start(self.packets.extend, self.lost.append)

    def close(self) -> None:
        self.tun.close()
        self.tun.close()
        self.system.close()


async def test_the_address_family_comes_off_and_goes_on() -> None:
    bench = Bench()
    bench.start()
    bench.system.send(b"\0\0\0\x02" + V4)
    bench.system.send(b"\0\0\0\x1e" + V6)
    await until(lambda: len(bench.packets) == 2)
    assert bench.packets == [(NO_OFFLOAD, V4), (NO_OFFLOAD, V6)]
    assert bench.tun.write(NO_OFFLOAD, V4) and bench.tun.write(NO_OFFLOAD, V6)
    assert bench.system.recv(100) == b"\0\0\0\x02" + V4
    assert bench.system.recv(100) == b"\0\0\0\x1e" + V6
    bench.close()


async def test_while_paused_nothing_is_delivered() -> None:
    bench = Bench()
    bench.start()
    bench.tun.pause_reading()
    bench.system.send(b"\0\0\0\x02" + V4)
    for _ in range(5):
        await asyncio.sleep(0)
    assert bench.packets == []
    bench.tun.resume_reading()
    await until(lambda: len(bench.packets) == 1)
    bench.close()


async def test_what_has_come_can_be_read_without_waiting() -> None:
    bench = Bench()
    bench.tun.read_now()
    bench.start()
    bench.system.send(b"\0\0\0\x02" + V4)
    bench.tun.read_now()
    assert bench.packets == [(NO_OFFLOAD, V4)]
    bench.close()
    bench.tun.read_now()


async def test_what_the_system_refuses_is_dropped() -> None:
    bench = Bench()
    bench.system.close()
    assert not bench.tun.write(NO_OFFLOAD, V4)
    bench.close()


async def test_super_packets_are_not_offered() -> None:
    bench = Bench()
    assert not bench.tun.can_offload
    bench.tun.set_offload(True)
    bench.close()


@pytest.mark.skipif(sys.platform == "darwin", reason="needs a system without utun")
def test_a_name_of_ones_own_is_refused() -> None:
    with pytest.raises(LocalError, match="names its devices itself"):
        open_device("vpn0")
