"""What happens to networks while a connection is forwarded, step by step, each with the times it
took. For the tests and for `make pathmatrix`.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass

from tests.netns.path_lab import DIRECT, DIRECT_4, DIRECT_6, RELAYED, Nat, PathLab, Session

WITHIN = 10.0
"""Seconds in which data flows again, and on the path that it should have."""

UDP_BACK_WITHIN = 15.0
"""Seconds in which a direct path is found when UDP is let through: nobody tells that it is. Each
side asks every 7 seconds how it looks from outside, and rounds of probes begin every 10."""

HEADING = (
    "| what happens | bytes are back after | on the right path after | path |\n|---|---|---|---|"
)


@dataclass
class Step:
    """`back` and `there`: seconds from the change until forwarded bytes were back, and until the
    way was the wanted one; None when that did not come."""

    what: str
    within: float
    back: float | None = None
    there: float | None = None
    way: str = ""
    problem: str = ""

    @property
    def is_good(self) -> bool:
        back, there = self.back, self.there
        return back is not None and back <= WITHIN and there is not None and there <= self.within

    @property
    def row(self) -> str:
        """Of the table that `HEADING` begins."""
        took = [
            f"{each:.1f} s" if each is not None else "never" for each in (self.back, self.there)
        ]
        cells = [self.what, *took, "relay" if "://" in self.way else self.way]
        return "| " + " | ".join(cell if self.is_good else f"**{cell}**" for cell in cells) + " |"


def follow(session: Session, what: str, wanted: str, *, within: float = WITHIN) -> Step:
    """How long forwarded bytes, and then a way that matches `wanted`, take from now on."""
    began = time.monotonic()
    done = Step(what, within)
    try:
        session.echo_within(max(within, 2 * WITHIN))
        done.back = time.monotonic() - began
    except (OSError, AssertionError) as error:
        done.problem = f"{type(error).__name__} {error}\n"
    there = session.goes(wanted, max(0.1, within + WITHIN - (time.monotonic() - began)))
    done.there = None if there is None else max(0.0, there - began)
    done.way = session.way
    if not done.is_good:
        done.problem += session.text
    return done


# Uplinks

TOUR = ("46", "4", "6", "46", "6", "4", "46")
"""Each of the six changes between IPv4 only, IPv6 only and both."""

_NAMES = {"4": "IPv4", "6": "IPv6", "46": "both"}
_SIDES = {"A": "client", "B": "server"}


def between(one: str, other: str) -> str:
    """What the way is like when two sides have these versions: direct when there is one that both
    have, else the relay."""
    if {one, other} == {"4", "6"}:
        return RELAYED
    if one == other == "46":
        return DIRECT
    return DIRECT_4 if "4" in (one, other) else DIRECT_6


def tour(lab: PathLab, side: str, other: str, stops: tuple[str, ...] = TOUR) -> Iterator[Step]:
    """One connection while the uplink of `side` changes, and the other side has `other`. The lab
    has to have IPv6."""
    for each in "AB":
        lab.lab.set_nat(each, Nat.RESTRICTED)
        lab.uplink(each, stops[0] if each == side else other)
    with lab.session() as session:
        assert session.goes(between(stops[0], other), 15.0), session.text
        for before, after in zip(stops, stops[1:], strict=False):
            what = f"the {_SIDES[side]} from {_NAMES[before]} to {_NAMES[after]}"
            lab.uplink(side, after)
            yield follow(session, f"{what}, the other {_NAMES[other]}", between(after, other))


# Addresses


def moves(lab: PathLab) -> Iterator[Step]:
    """Each side gets another address, as from another access point."""
    for side in "AB":
        lab.lab.set_nat(side, Nat.RESTRICTED)
    with lab.session() as session:
        assert session.direct(15.0), session.text
        for side in "AB":
            lab.move(side)
            yield follow(session, f"the {_SIDES[side]} has another address", DIRECT)


# UDP that is blocked

BLOCKED = {"A": "the client", "B": "the server", "AB": "both sides"}


def udp_comes_and_goes(
    lab: PathLab, sides: str, *, from_start: bool = True, seconds: float = 0.0
) -> Iterator[Step]:
    """UDP is blocked on `sides`, before a connection begins with `from_start` or else while it is
    direct, and let through again `seconds` after data has gone over the relay."""
    name = BLOCKED[sides]

    def set_udp(kind: Nat) -> None:
        for side in sides:
            lab.lab.set_nat(side, kind)

    for side in "AB":
        lab.lab.set_nat(side, Nat.RESTRICTED)
    if from_start:
        set_udp(Nat.NO_UDP)
    with lab.session() as session:
        up = float(session.up[1]["elapsed"])
        if from_start:
            done = follow(session, f"start, UDP blocked at {name}", RELAYED)
            done.back = None if done.back is None else up + done.back
            done.there = None if done.there is None else up
            yield done
        else:
            assert session.direct(15.0), session.text
            set_udp(Nat.NO_UDP)
            yield follow(session, f"UDP blocked at {name} meanwhile", RELAYED)
        lab.wait(seconds)
        set_udp(Nat.RESTRICTED)
        yield follow(session, f"UDP let through at {name}", DIRECT, within=UDP_BACK_WITHIN)


# The relay


def relay_restarts(lab: PathLab, *options: str, away: float) -> Iterator[Step]:
    """The relay ends and is there again after `away` seconds. `options`: of both sides."""
    for side in "AB":
        lab.lab.set_nat(side, Nat.RESTRICTED)
    only = "--relay-only" in options
    wanted, name = (RELAYED, "the only way") if only else (DIRECT, "beside a direct path")
    with lab.session(*options, server_options=options) as session:
        assert session.goes(wanted, 15.0), session.text
        session.echo_within(WITHIN)
        lab.relay.end()
        if not only:
            yield follow(session, f"the relay, {name}, ends", wanted)
        lab.wait(away)
        lab.relay = lab.start_relay()
        yield follow(session, f"the relay, {name}, is back after {away:g} s", wanted)
        if not only:
            # It is there to fall back to again.
            lab.lab.set_nat("A", Nat.NO_UDP)
            yield follow(session, "then UDP is blocked at the client", RELAYED)
