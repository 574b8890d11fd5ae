"""What `figures.py` compares: lines of our own with other settings and on other paths, and those of
others. The names are the keys of its JSON.
"""

import contextlib
import importlib.util
import json
import re
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench import lines
from bench.lines import HERE, OFFLINE, Line, OurServer, core, free_port, listening
from bench.processes import PATH, BenchError, Program, printed, python

MAKE = Callable[..., AbstractContextManager[Line]]
ETHERNET = (str(HERE / "ethernet.py"),)
UNTOUCHED = (str(HERE / "untouched.py"),)
LEAST_CARRIED = 1_000_000
"""Bytes; a wire that carried less was gone around."""


@dataclass(frozen=True)
class Compared:
    """A line and how much of it is measured."""

    make: MAKE
    small: bool = False
    """Round trips of 64 bytes too."""
    many: bool = False
    """50 streams at a time too."""
    slow: bool = False
    """A few Mbit/s: a shorter warm-up, and longer transfers for as many losses to count."""
    by_chance: bool = False
    """What the path does is drawn by lot: another draw in each run, the same for all lines."""
    setting: str = ""
    """For the plot: the engine setting that it stands for."""

    def begin(self, target: int, run: int) -> AbstractContextManager[Line]:
        """The line, up and leading to port `target`, in the `run`-th run."""
        return self.make(target, seed=run) if self.by_chance else self.make(target)


@contextmanager
def over_wire(
    target: int,
    *,
    settings: str = "",
    path: tuple[str, ...] = (),
    runner: tuple[str, ...] = ETHERNET,
    seed: int = 0,
) -> Iterator[Line]:
    """Ours, with `bench/wire.py` between the two sides; `path`: its options, `seed` one of them.
    One path only: the sides would find the direct one around the wire."""
    settings = f"multipath = false\n{settings}"
    with OurServer(settings=settings, allowed_tcp=("127.0.0.0/8",), runner=runner) as server:
        far = server.address.rpartition(":")[2]
        with Program(python(HERE / "wire.py", far, *path, "--seed", str(seed))) as wire:
            near = wire.wait_for("port ").rpartition(" ")[2]
            tunnel = ("-s", f"tcp://127.0.0.1:{target}", "-t", "127.0.0.1:0")
            with server.client(*tunnel, address=f"127.0.0.1:{near}") as client:
                port = listening(client)
                client.wait_for('"tunnel_up"')
                programs = (client, server.program)
                yield Line(port, (client.pid,), (server.program.pid,), programs)
                wire.terminate()
                counts = json.loads(wire.wait_for("carried ").partition("carried ")[2])
    print(f"  the wire: {counts}", file=sys.stderr)
    if sum(way["carried"] for way in counts.values()) < LEAST_CARRIED:
        raise BenchError(f"the connection went around the wire: {counts}")


@contextmanager
def to_iroh(target: int) -> Iterator[Line]:
    """Our client, and a server on a real iroh endpoint."""
    if importlib.util.find_spec("iroh") is None:
        raise BenchError("iroh is not installed, or has no wheel for this platform")
    token = printed("-m", "tunnel_rs", "generate-token").strip()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "token.txt"
        file.write_text(token)
        with Program(python(HERE / "iroh_peer.py", token), core=core(1)) as server:
            endpoint_id, address = server.wait_for("at ").rpartition("at ")[2].split()
            known = ("-n", endpoint_id, "--peer-addr", address, "--auth-token-file", file)
            tunnel = ("-s", f"tcp://127.0.0.1:{target}", "-t", "127.0.0.1:0")
            command = python("-m", "tunnel_rs", "client", *known, "--json", *OFFLINE, *tunnel)
            with Program(command, core=core(0)) as client:
                port = listening(client)
                client.wait_for('"tunnel_up"')
                yield Line(port, (client.pid,), (server.pid,), (client, server))


@contextmanager
def pproxy(target: int) -> Iterator[Line]:
    """Its own pair, encrypted with AES-256-GCM."""
    for module in ("pproxy", "Crypto"):
        if importlib.util.find_spec(module) is None:
            raise BenchError(f"{module} is not installed: pip install pproxy pycryptodome")
    between, local = free_port(), free_port()
    secure = f"ss://aes-256-gcm:for-a-bench-only@127.0.0.1:{between}"
    fixed = f"tunnel{{127.0.0.1:{target}}}://127.0.0.1:{local}"
    script = HERE / "pproxy_forward.py"
    with Program(python(script, "-l", secure), core=core(1)) as server:
        server.wait_for("Serving on")
        with Program(python(script, "-l", fixed, "-r", secure), core=core(0)) as client:
            client.wait_for("Serving on")
            yield Line(local, (client.pid,), (server.pid,), (client, server))


@contextmanager
def fowl(target: int) -> Iterator[Line]:
    """Its client and service, introduced by a mailbox server of our own."""
    for program in ("fowl", "twist"):
        if shutil.which(program, path=PATH) is None:
            raise BenchError(f"{program} is not in PATH: pip install fowl (it needs Twisted)")
    mailbox, local = free_port(), free_port()
    listen = ("--port", f"tcp:{mailbox}:interface=127.0.0.1")
    with Program(["twist", "wormhole-mailbox", *listen]) as server:
        server.wait_for("Starting factory")
        with Program(_fowl(mailbox, "--service", f"bench:{target}"), core=core(1)) as far:
            code = re.search(r"[0-9]+-[a-z]+-[a-z]+", far.wait_for("code: ", within=60))
            if code is None:
                raise BenchError("fowl shows no code")
            client = _fowl(mailbox, "--client", f"bench:{local}", code[0])
            with Program(client, core=core(0)) as near:
                near.wait_for("--> bench", within=60)
                with _read(near, far):
                    yield Line(local, (near.pid,), (far.pid,))


def _fowl(mailbox: int, *arguments: str) -> list[str]:
    return ["fowl", "--no-logo", "--mailbox", f"ws://127.0.0.1:{mailbox}/v1", *arguments]


@contextmanager
def _read(*programs: Program) -> Iterator[None]:
    """Meanwhile throw away what they print: they draw their status again and again."""
    done = threading.Event()

    def read() -> None:
        while not done.wait(0.2):
            for program in programs:
                program.discard_output()

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@contextmanager
def dumbpipe(target: int) -> Iterator[Line]:
    """`listen-tcp` and `connect-tcp`, which knows the other's addresses from its ticket."""
    if shutil.which("dumbpipe", path=PATH) is None:
        raise BenchError("dumbpipe is not in PATH: cargo install dumbpipe")
    local = free_port()
    listen = ["dumbpipe", "listen-tcp", "--host", f"127.0.0.1:{target}"]
    with Program(listen, core=core(1)) as far:
        ticket = far.wait_for("connect-tcp").split()[-1]
        connect = ["dumbpipe", "connect-tcp", "--addr", f"127.0.0.1:{local}", ticket]
        with Program(connect, core=core(0)) as near:
            _wait_until_listening(near, local)
            yield Line(local, (near.pid,), (far.pid,), (near, far))


def _wait_until_listening(program: Program, port: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and not program.ended:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)
    raise BenchError(f"{' '.join(program.command)}: nothing listens on port {port}")


STOCK, OURS, IROH = "stock aioquic", "tunnel-rs", "tunnel-rs to real iroh"
NO_OFFLOAD, NO_FAST, NEITHER = "without GSO/GRO", "fast path off", "both off"
NEWRENO = "newreno"
SMALL = "1452-byte datagrams"
SMALL_NO_OFFLOAD, SMALL_NO_FAST = f"{SMALL}, {NO_OFFLOAD}", f"{SMALL}, {NO_FAST}"
WIRE, LOSS, REORDER = "200 Mbit/s, 20 ms", "the same, 1 % loss", "the same, 0.5 % reordered"
LOSS_STOCK, REORDER_STOCK = (f"{line}, aioquic's recovery" for line in (LOSS, REORDER))
SSH, ASYNCSSH, PPROXY = "ssh -L", "asyncssh", "pproxy, AES-256-GCM pair"
FOWL, DUMBPIPE = "fowl", "dumbpipe"

_NO_FAST = "fast_path = false"
_LOSS = ("--loss", "0.01")
_REORDER = ("--late-share", "0.005", "--late", "0.003")

ALL: dict[str, Compared] = {
    STOCK: Compared(lines.stock_aioquic, small=True, slow=True, setting="stock aioquic"),
    OURS: Compared(lines.ours, small=True, many=True, setting="as shipped"),
    NO_OFFLOAD: Compared(partial(lines.ours, settings="offload = false"), setting=NO_OFFLOAD),
    NO_FAST: Compared(partial(lines.ours, settings=_NO_FAST), small=True, setting=NO_FAST),
    NEITHER: Compared(
        partial(lines.ours, settings=f"{_NO_FAST}\noffload = false"), setting=NEITHER
    ),
    NEWRENO: Compared(
        partial(lines.ours, settings='congestion_controller = "newreno"'), setting=NEWRENO
    ),
    SMALL: Compared(partial(lines.ours, runner=ETHERNET), setting=SMALL),
    SMALL_NO_OFFLOAD: Compared(
        partial(lines.ours, settings="offload = false", runner=ETHERNET), setting=SMALL_NO_OFFLOAD
    ),
    SMALL_NO_FAST: Compared(
        partial(lines.ours, settings=_NO_FAST, runner=ETHERNET), setting=SMALL_NO_FAST
    ),
    IROH: Compared(to_iroh, small=True),
    WIRE: Compared(over_wire),
    LOSS: Compared(partial(over_wire, path=_LOSS), slow=True, by_chance=True),
    LOSS_STOCK: Compared(
        partial(over_wire, settings=_NO_FAST, path=_LOSS, runner=UNTOUCHED),
        slow=True,
        by_chance=True,
    ),
    REORDER: Compared(partial(over_wire, path=_REORDER), slow=True, by_chance=True),
    REORDER_STOCK: Compared(
        partial(over_wire, settings=_NO_FAST, path=_REORDER, runner=UNTOUCHED),
        slow=True,
        by_chance=True,
    ),
    SSH: Compared(lines.openssh, small=True),
    ASYNCSSH: Compared(lines.asyncssh, small=True),
    PPROXY: Compared(pproxy, small=True),
    FOWL: Compared(fowl, small=True, slow=True),
    DUMBPIPE: Compared(dumbpipe, small=True),
}
