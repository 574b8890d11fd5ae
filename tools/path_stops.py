"""How soon data flows again after a program was stopped, a machine without network, or UDP blocked
for a while: the last table of `make pathmatrix`. All rows are waited for at the same time, each in
a lab of its own; together they take some 12 minutes, and little of the processor.
"""

import multiprocessing
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from tests.netns.path_lab import Nat, PathLab, Session, path_lab

WITHIN = 3.0
"""Seconds in which bytes that were sent meanwhile are back, once the program and the network are
there again. Of a new connection: in which it is up."""

DIRECT_WITHIN = 15.0
IDLE, LONG_IDLE = 300.0, 900.0
"""Seconds of `idle_timeout`: as it comes, and set for both sides in the long rows."""


@dataclass(frozen=True)
class Outage:
    """One row: what happens to whom, and for how long."""

    what: str
    side: str
    seconds: float
    idle_timeout: float = IDLE

    @property
    def is_outlived(self) -> bool:
        return self.seconds < self.idle_timeout

    @property
    def text(self) -> str:
        text = f"the {_WHO[self.side]} {self.what} for {self.seconds:g} s"
        return text if self.idle_timeout == IDLE else f"{text}, idle_timeout {self.idle_timeout:g}"


_WHO = {"A": "client", "B": "server", "AB": "client and the server"}
STOPPED, OFFLINE, BLOCKED = "stopped", "without network", "without UDP"
OUTAGES = [
    Outage(STOPPED, side, seconds, idle)
    for seconds, idle in ((60.0, IDLE), (240.0, IDLE), (600.0, LONG_IDLE), (600.0, IDLE))
    for side in "AB"
]
OUTAGES += [Outage(OFFLINE, side, 60.0) for side in "AB"]
OUTAGES += [Outage(BLOCKED, side, seconds) for seconds in (10.0, 30.0, 90.0) for side in _WHO]


def happen(lab: PathLab, session: Session, outage: Outage) -> None:
    """Let it happen; it is over when this returns."""
    if outage.what == OFFLINE:
        lab.lab.run(f"nat{outage.side}", "ip link set wan down")
        time.sleep(outage.seconds)
        lab.lab.run(f"nat{outage.side}", "ip link set wan up")
        return
    if outage.what == BLOCKED:
        block_udp(lab, session, outage)
        return
    process = (session.client if outage.side == "A" else session.server).process
    process.send_signal(signal.SIGSTOP)
    time.sleep(outage.seconds)
    process.send_signal(signal.SIGCONT)


def block_udp(lab: PathLab, session: Session, outage: Outage) -> None:
    """The relay has to take over meanwhile, or else the row fails."""
    for side in outage.side:
        lab.lab.set_nat(side, Nat.NO_UDP)
    assert session.echo_within(30.0) < WITHIN, "the relay did not take over"
    time.sleep(outage.seconds)
    for side in outage.side:
        lab.lab.set_nat(side, Nat.RESTRICTED)


def outlived(session: Session, over: float) -> tuple[bool, str]:
    took = session.echo_within(30.0)
    at = session.direct(DIRECT_WITHIN)
    way = "relay" if at is None else f"direct after {max(0.0, at - over):.1f} s"
    return took < WITHIN and at is not None, f"same connection, {took:.2f} s, {way}"


def replaced(lab: PathLab, session: Session, over: float) -> tuple[bool, str]:
    """The old connection is given up with a line that says why, and another takes its place."""
    lost = next((each for _, each in session.client.seen if each["event"] == "tunnel_lost"), None)
    if lost is None and (found := session.client.next("tunnel_lost", 30.0)):
        lost = found[1]
    if lost is None:
        return False, "never given up"
    ups = [at for at, each in session.client.seen if each["event"] == "tunnel_up" and at > over]
    if not ups and (up := session.client.next("tunnel_up", 120.0)):
        ups = [up[0]]
    if not ups:
        return False, f"lost ({lost['reason']}), never up again"
    session.sock.settimeout(5.0)
    try:
        ended = session.sock.recv(1) == b""
    except ConnectionResetError:
        ended = True
    with lab.connect() as sock:
        sock.sendall(b"x")
        ended = ended and sock.recv(1) == b"x"
    took = ups[0] - over
    return ended and took < WITHIN, f"{lost['reason']}; new connection, {took:.2f} s"


def row(outage: Outage) -> tuple[bool, str]:
    """Whether it went as it must, and what to print."""
    with ExitStack() as stack:
        with _starting:
            lab, session = begin(outage, stack)
        happen(lab, session, outage)
        over = time.monotonic()
        try:
            if outage.is_outlived:
                good, text = outlived(session, over)
            else:
                good, text = replaced(lab, session, over)
        except (OSError, AssertionError) as error:
            good, text = False, f"{type(error).__name__}: {error}"
        if not good:
            print(f"{outage.text}\n{session.text}", file=sys.stderr, flush=True)
    return good, text


def begin(outage: Outage, stack: ExitStack) -> tuple[PathLab, Session]:
    """A lab, and in it a connection that is direct."""
    lab = stack.enter_context(path_lab())
    for side in "AB":
        lab.lab.set_nat(side, Nat.RESTRICTED)
    options = {}
    for role in ("client", "server"):
        file = lab.directory / f"{role}.toml"
        file.write_text(
            f'role = "{role}"\nmode = "iroh"\n'
            f"[iroh.transport]\nidle_timeout = {outage.idle_timeout:g}\n"
        )
        options[role] = ("-c", str(file))
    session = stack.enter_context(lab.session(*options["client"], server_options=options["server"]))
    session.direct(DIRECT_WITHIN)
    session.echo_within(10.0)
    return lab, session


_starting = multiprocessing.Lock()
"""Labs begin one after the other: starting programs is what keeps the machine busy."""


def attempt(outage: Outage) -> tuple[bool, str]:
    try:
        return row(outage)
    except Exception:
        return False, traceback.format_exc()


def stops(outages: list[Outage], tell: Callable[[str], None]) -> bool:
    """One table. Whether all is as it must be."""
    tell("| what happens | then |\n|---|---|")
    all_good = True
    with multiprocessing.Pool(len(outages)) as pool:
        for outage, (good, text) in zip(outages, pool.imap(attempt, outages), strict=True):
            tell(f"| {outage.text} | {text if good else f'**{text}**'} |")
            all_good &= good
    return all_good
