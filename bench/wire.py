"""A path that looks like the internet, in user space: rate, delay and a drop-tail queue, and on
request loss and reordering. Both directions are alike.

    python bench/wire.py SERVER_PORT [--rate 200e6] [--delay 0.01] [--queue 500000] [--mtu 1472]
                         [--loss 0.01] [--late-share 0.005] [--late 0.003] [--seed 4]
                         [--server 127.0.0.1] [--near 127.0.0.1] [--far 127.0.0.1]

Prints `port N`, where a client reaches the server at SERVER:SERVER_PORT; NEAR and FAR are our own
addresses towards client and server. On SIGTERM prints `carried {...}`. Counted are UDP payloads;
what is larger than the MTU vanishes, as with "don't fragment" set. One client at a time: the last
that sent.
"""

import argparse
import heapq
import json
import random
import select
import signal
import socket
import sys
import time
from dataclasses import asdict, dataclass
from types import FrameType

BUFFER = 4 << 20
READS = 64
"""Datagrams read from one socket before others get their turn."""
LONGEST_WAIT = 0.2
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Conditions:
    """Rate in bit/s, times in seconds, sizes in bytes, the rest are shares of 1."""

    rate: float = 200e6
    delay: float = 0.01
    queue: int = 500_000
    mtu: int = 1472
    loss: float = 0.0
    late_share: float = 0.0
    late: float = 0.003
    seed: int = 4


@dataclass
class Counts:
    """Bytes that came through, and datagrams that did not, by reason; late ones came through."""

    carried: int = 0
    overflowed: int = 0
    lost: int = 0
    too_large: int = 0
    late: int = 0


class Direction:
    """What is on its way one way. Times are given: it waits for nothing."""

    def __init__(self, conditions: Conditions, chance: random.Random) -> None:
        self._conditions = conditions
        self._chance = chance
        self._free = 0.0
        self._number = 0
        self._underway: list[tuple[float, int, bytes]] = []
        self.counts = Counts()

    def enter(self, datagram: bytes, now: float) -> None:
        conditions, counts = self._conditions, self.counts
        bytes_per_second = conditions.rate / 8
        if len(datagram) > conditions.mtu:
            counts.too_large += 1
            return
        if (self._free - now) * bytes_per_second > conditions.queue:
            counts.overflowed += 1
            return
        self._free = max(now, self._free) + len(datagram) / bytes_per_second
        if self._chance.random() < conditions.loss:
            counts.lost += 1
            return
        arrival = self._free + conditions.delay
        if self._chance.random() < conditions.late_share:
            counts.late += 1
            arrival += conditions.late
        self._number += 1
        heapq.heappush(self._underway, (arrival, self._number, datagram))

    @property
    def next_arrival(self) -> float:
        return self._underway[0][0] if self._underway else float("inf")

    def leave(self) -> bytes:
        """The datagram that arrives next."""
        datagram = heapq.heappop(self._underway)[2]
        self.counts.carried += len(datagram)
        return datagram


class Wire:
    """Two directions between two sockets."""

    def __init__(
        self,
        server_port: int,
        conditions: Conditions,
        *,
        server: str = LOOPBACK,
        near: str = LOOPBACK,
        far: str = LOOPBACK,
    ) -> None:
        self._near, self._far = _socket(near), _socket(far)
        self._far.connect((server, server_port))
        self._client: tuple[str, int] | None = None
        chance = random.Random(conditions.seed)
        self.there, self.back = Direction(conditions, chance), Direction(conditions, chance)
        self.port: int = self._near.getsockname()[1]

    def run(self) -> None:
        while True:
            arrival = min(self.there.next_arrival, self.back.next_arrival)
            wait = min(max(arrival - time.perf_counter(), 0), LONGEST_WAIT)
            ready, _, _ = select.select([self._near, self._far], [], [], wait)
            for sock in ready:
                self._read(sock)
            self._deliver(time.perf_counter())

    def _read(self, sock: socket.socket) -> None:
        direction = self.there if sock is self._near else self.back
        for _ in range(READS):
            try:
                datagram, source = sock.recvfrom(65_535)
            except BlockingIOError:
                return
            except ConnectionRefusedError:
                continue
            if sock is self._near:
                self._client = source
            direction.enter(datagram, time.perf_counter())

    def _deliver(self, now: float) -> None:
        while self.there.next_arrival <= now:
            self._send(self._far, self.there.leave(), None)
        while self.back.next_arrival <= now:
            self._send(self._near, self.back.leave(), self._client)

    def _send(self, sock: socket.socket, data: bytes, to: tuple[str, int] | None) -> None:
        try:
            if to is None:
                sock.send(data)
            else:
                sock.sendto(data, to)
        except (BlockingIOError, ConnectionRefusedError):
            pass  # the side has gone, or does not read: lost like on any path


def _socket(host: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, BUFFER)
    sock.bind((host, 0))
    sock.setblocking(False)
    return sock


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("server_port", type=int)
    for name, default in asdict(Conditions()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    places = ("server", "near", "far")
    for name in places:
        parser.add_argument(f"--{name}", default=LOOPBACK)
    given = vars(parser.parse_args())
    hosts = {name: given.pop(name) for name in places}
    wire = Wire(given.pop("server_port"), Conditions(**given), **hosts)

    def tell(_: int, __: FrameType | None) -> None:
        counts = {"there": asdict(wire.there.counts), "back": asdict(wire.back.counts)}
        print("carried", json.dumps(counts), flush=True)
        sys.exit(0)

    signal.signal(signal.SIGTERM, tell)
    print("port", wire.port, flush=True)
    wire.run()


if __name__ == "__main__":
    main()
