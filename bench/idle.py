"""What idle forwarded connections cost: memory each, and processor time of both sides.

    python bench/idle.py [--connections 200] [--seconds 20]

Fails above 40 kB for each connection on a side, or 0.5 % of a core on a side.
"""

import argparse
import socket
import sys
import time
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import report, traffic
from bench.lines import OurServer, listening
from bench.processes import BenchError, Program, Usage, python, usage

MOST_MEMORY = 40_000
MOST_CPU = 0.005


def echo(sock: socket.socket) -> None:
    sock.sendall(b"x")
    if sock.recv(1) != b"x":
        raise BenchError("a connection gave no echo")


def opened(stack: ExitStack, port: int) -> socket.socket:
    """A connection that has carried a byte both ways: everything it needs has been made."""
    sock = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
    sock.sendall(traffic.HEADER.pack(b"E", 0))
    echo(sock)
    return sock


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--connections", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=20)
    given = parser.parse_args()
    options = ("--max-sessions", str(given.connections + 10))
    with ExitStack() as stack:
        target = stack.enter_context(Program(python(Path(traffic.__file__))))
        port = int(target.wait_for("port ").rpartition(" ")[2])
        server = stack.enter_context(OurServer(allowed_tcp=("127.0.0.0/8",), options=options))
        tunnel = ("-s", f"tcp://127.0.0.1:{port}", "-t", "127.0.0.1:0")
        client = stack.enter_context(server.client(*tunnel))
        local = listening(client)
        client.wait_for('"tunnel_up"')
        with ExitStack() as warm_up:
            for _ in range(20):
                opened(warm_up, local)
        before = sides(client, server.program)
        sockets = [opened(stack, local) for _ in range(given.connections)]
        after = sides(client, server.program)
        time.sleep(given.seconds)
        later = sides(client, server.program)
        for sock in sockets:
            echo(sock)
    rows, figures, good = [], {}, True
    for name, first, second, third in zip(("client", "server"), before, after, later, strict=True):
        memory = (second.rss - first.rss) / given.connections
        cpu = (third.cpu - second.cpu) / given.seconds
        good = good and memory <= MOST_MEMORY and cpu <= MOST_CPU
        figures[name] = {"bytes_each": memory, "idle_cpu": cpu, "rss": second.rss}
        rows.append([name, f"{memory / 1e3:.1f}", f"{second.rss / 1e6:.1f}", f"{cpu:.2%}"])
    report.print_table(("side", "kB each", "RSS MB", "idle CPU"), rows)
    print(f"\n{report.save('idle', {'connections': given.connections, **figures})}")
    if not good:
        print(f"over {MOST_MEMORY / 1e3:.0f} kB each or {MOST_CPU:.1%} idle", file=sys.stderr)
    return 0 if good else 1


def sides(client: Program, server: Program) -> tuple[Usage, Usage]:
    return usage([client.pid]), usage([server.pid])


if __name__ == "__main__":
    sys.exit(main())
