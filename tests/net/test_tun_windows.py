import queue
import sys
import threading
from pathlib import Path

import pytest
from tests.support.sockets import until

from tunnel_rs.errors import LocalError
from tunnel_rs.net import tun_windows
from tunnel_rs.net.tun_windows import WindowsTun, WintunRing, library
from tunnel_rs.proto.vpn_frames import Offloaded
from tunnel_rs.proto.vpn_offload import NO_OFFLOAD


class FakeRing:
    """Packets put in by the test."""

    def __init__(self) -> None:
        self.incoming: queue.Queue[bytes] = queue.Queue()
        self.sent: list[bytes] = []
        self.full = self.gone = self.closed = False
        self.looked = threading.Event()

    def receive(self) -> bytes | None:
        if self.gone:
            raise OSError(38, "the adapter has gone")
        try:
            return self.incoming.get_nowait()
        except queue.Empty:
            return None

    def wait(self) -> None:
        self.looked.set()
        threading.Event().wait(0.005)

    def send(self, packet: bytes) -> bool:
        if not self.full:
            self.sent.append(packet)
        return not self.full

    def close(self) -> None:
        self.closed = True


class Bench:
    def __init__(self) -> None:
        self.ring = FakeRing()
        self.packets: list[Offloaded] = []
        self.lost: list[OSError] = []
        self.tun = WindowsTun(self.ring, "vpn")
        self.tun.start(self.packets.extend, self.lost.append)


async def test_packets_pass_both_ways() -> None:
    bench = Bench()
    for packet in (b"one", b"two"):
        bench.ring.incoming.put(packet)
    await until(lambda: len(bench.packets) == 2)
    assert bench.packets == [(NO_OFFLOAD, b"one"), (NO_OFFLOAD, b"two")]
    assert bench.tun.write(NO_OFFLOAD, b"back")
    assert bench.ring.sent == [b"back"]
    bench.ring.full = True
    assert not bench.tun.write(NO_OFFLOAD, b"back")
    bench.tun.close()
    bench.tun.close()
    assert bench.ring.closed
    assert not bench.tun.write(NO_OFFLOAD, b"late")


async def test_while_paused_at_most_one_batch_is_taken_from_the_ring() -> None:
    bench = Bench()
    bench.tun.pause_reading()
    for number in range(500):
        bench.ring.incoming.put(bytes([number & 255]))
    await until(lambda: len(bench.packets) > 0)
    for _ in range(3):
        await until(lambda: bench.ring.incoming.qsize() >= 500 - 64)
    assert len(bench.packets) <= 64
    bench.tun.resume_reading()
    await until(lambda: len(bench.packets) == 500)
    bench.tun.close()


async def test_an_adapter_that_has_gone_is_told() -> None:
    bench = Bench()
    bench.ring.gone = True
    await until(lambda: bool(bench.lost))
    assert "has gone" in str(bench.lost[0])
    bench.tun.close()


async def test_super_packets_are_not_offered() -> None:
    bench = Bench()
    assert not bench.tun.can_offload
    bench.tun.set_offload(True)
    bench.tun.close()


def test_without_the_package_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tun_windows.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(LocalError, match="pytun-pmd3"):
        library()


@pytest.mark.skipif(sys.platform == "win32", reason="needs a system without Wintun")
def test_elsewhere_there_is_no_ring() -> None:
    with pytest.raises(LocalError, match="Windows only"):
        WintunRing(Path("wintun.dll"), "vpn")
