"""`tunnel-rs` over a link of some quality (`bench/wire.py`), with a relay beside it.

UDP gets from one side to the other through that link alone; the relay is reached over TCP, at full
speed. So a connection goes directly as long as it keeps to the link.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from socket import socket

from tests.netns.nat_lab import end
from tests.netns.path_lab import Nat, PathLab
from tests.support.link_quality import Quality

WIRE = Path(__file__).resolve().parents[2] / "bench" / "wire.py"
WIRE_IP = "198.51.100.11"
SERVER_IP, SERVER_PORT = "198.51.100.22", 4444

UP_WITHIN, DIRECT_WITHIN, TRANSFER_WITHIN = 10.0, 30.0, 300.0

HEADING = (
    "| link | up after | direct after | bytes, there and back | took | data moved to the relay |\n"
    "|---|---|---|---|---|---|"
)


@dataclass
class Crossed:
    """Seconds from the client's start; `took` is the transfer's. `falls`: how often data left the
    direct path after it had been reached."""

    quality: Quality
    up: float | None = None
    direct: float | None = None
    took: float | None = None
    falls: int = 0
    problem: str = ""

    @property
    def is_good(self) -> bool:
        return (
            self.up is not None
            and self.up <= UP_WITHIN
            and self.direct is not None
            and self.took is not None
        )

    @property
    def row(self) -> str:
        """Of the table that `HEADING` begins."""
        up, direct, took = (
            f"{each:.1f} s" if each is not None else "**never**"
            for each in (self.up, self.direct, self.took)
        )
        size = f"{self.quality.size // 1000:,} kB"
        return f"| {self.quality.text} | {up} | {direct} | {size} | {took} | {self.falls} |"


def cross(lab: PathLab, quality: Quality) -> Crossed:
    """One tunnel over the link, and a transfer through it and back."""
    found = Crossed(quality)
    for side in "AB":
        lab.lab.set_nat(side, Nat.OPEN)
        lab.lab.run(f"nat{side}", "nft -f -", _UDP_BY_THE_LINK)
    bound = ("--bind", f"{SERVER_IP}:{SERVER_PORT}")
    with _link(lab, quality) as port:
        address = ("--peer-addr", f"{WIRE_IP}:{port}")
        try:
            with lab.session(*address, server_options=bound, within=UP_WITHIN + 35.0) as session:
                found.up = float(session.up[1]["elapsed"])
                direct = session.direct(DIRECT_WITHIN)
                if direct is not None:
                    found.direct = found.up + max(0.0, direct - session.up[0])
                found.took = transfer(session.sock, quality.size)
                found.falls = sum("://" in way for way in session.ways)
                found.problem = "" if found.is_good else session.text
        except (AssertionError, OSError) as error:
            found.problem = f"{type(error).__name__} {error}"
    return found


def transfer(sock: socket, size: int) -> float:
    """Seconds until as many random bytes are back as they were."""
    sock.settimeout(TRANSFER_WITHIN)
    blob = os.urandom(size)
    began = time.monotonic()
    sender = threading.Thread(target=sock.sendall, args=(blob,), daemon=True)
    sender.start()
    back, left = sha256(), size
    while left:
        chunk = sock.recv(65_536)
        assert chunk, f"the connection ended {left} bytes before the end"
        back.update(chunk)
        left -= len(chunk)
    sender.join()
    assert back.digest() == sha256(blob).digest(), "other bytes came back"
    return time.monotonic() - began


_UDP_BY_THE_LINK = f"""
table inet link {{
  chain c_in {{ type filter hook input priority 0; policy accept;
    ip saddr {WIRE_IP} accept
    iifname "wan" meta l4proto udp drop
  }}
  chain c_out {{ type filter hook output priority 0; policy accept;
    ip daddr {WIRE_IP} accept
    oifname "wan" meta l4proto udp drop
  }}
}}"""


@contextmanager
def _link(lab: PathLab, quality: Quality) -> Iterator[int]:
    """The port of it."""
    options = {
        "server": SERVER_IP,
        "near": WIRE_IP,
        "far": WIRE_IP,
        "rate": quality.rate * 1e6,
        "delay": quality.delay,
        "queue": quality.queue,
        "loss": quality.loss,
    }
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    argv = [sys.executable, str(WIRE), str(SERVER_PORT), *words]
    process = lab.lab.start("pub", argv, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline().split()[1])
    finally:
        end(process)
