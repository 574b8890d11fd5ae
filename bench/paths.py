"""CPU of one connection in memory, by how many paths it has: `python bench/paths.py [megabytes]`.

Both engines run in this process on a virtual clock, without sockets, so that what differs is the
protocol code. Prints the least of several runs, in milliseconds of CPU per megabyte of both ends.
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.support.engines import PAIRS, open_stream, payload
from tests.support.paths import SECOND, PathNetwork

from tunnel_rs.proto.transport_settings import TransportSettings

KINDS = {
    "multipath off": (False, False, False),
    "one path": (True, False, False),
    "data on the second path": (True, True, False),
    "the same, first path abandoned": (True, True, True),
}
"""What is measured: multipath agreed on, a second path open and used, the first one left."""

RUNS = 5
MEGABYTE = 1_000_000
MTU = 1452


def measure(pair: str, kind: str, megabytes: int) -> float:
    """CPU seconds for a transfer from client to server."""
    multipath, second, alone = KINDS[kind]
    settings = TransportSettings(multipath=multipath)
    make_engine, make_server = PAIRS[pair]
    network = PathNetwork(
        make_engine=make_engine,
        make_server=make_server,
        client_settings=settings,
        server_settings=settings,
        offload=True,
    )
    network.mtu = MTU
    network.connect()
    network.settle()
    client, server = network.both()
    for link in network.links.values():
        link.delay(0.002)
    client.open_window()
    server.open_window()
    if second:
        path_id = network.open(SECOND)
        client.select_path(path_id)
        if alone:
            client.abandon_path(0, network.now)
    stream = open_stream(network.client)
    data = payload(MEGABYTE)
    started = time.process_time()
    for _ in range(megabytes):
        client.write(stream, data, False)
        network.run(60, lambda: client.total_unsent < MEGABYTE // 4)
    network.run(60, lambda: client.total_unsent == 0)
    return time.process_time() - started


def main() -> None:
    megabytes = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    for pair in ("fast", "stock"):
        size = megabytes if pair == "fast" else max(1, megabytes // 4)
        least = dict.fromkeys(KINDS, float("inf"))
        for _ in range(RUNS):
            for kind in KINDS:  # taking turns, so that all see the same machine
                least[kind] = min(least[kind], measure(pair, kind, size))
        base = least["multipath off"]
        for kind, seconds in least.items():
            cost = f"{seconds / size * 1000:6.1f} ms/MB"
            print(f"{pair:6} {kind:32} {cost}  {(seconds / base - 1) * 100:+5.1f} %")


if __name__ == "__main__":
    main()
