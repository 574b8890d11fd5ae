"""`tunnel-rs` finds direct paths through NATs, and a forwarded connection outlives what happens to
networks (root, Linux). All pairs of NATs and the long waits are in `make pathmatrix`."""

import signal
from collections.abc import Iterator

import pytest
from tests.netns.path_lab import Nat, PathLab, missing, path_lab

pytestmark = [
    pytest.mark.netns,
    pytest.mark.slow,
    pytest.mark.timeout(240),
    pytest.mark.skipif(bool(missing()), reason=missing() or "a lab is possible"),
]

RECOVERS_WITHIN = 10.0
"""Seconds in which data flows again after a change of the network."""


@pytest.fixture(scope="module")
def lab() -> Iterator[PathLab]:
    with path_lab() as one:
        yield one


@pytest.fixture
def behind_nats(lab: PathLab) -> PathLab:
    for side in "AB":
        lab.lab.set_nat(side, Nat.RESTRICTED)
    return lab


@pytest.mark.parametrize(
    ("mine", "theirs", "kind"),
    [
        (Nat.FULL_CONE, Nat.SYMMETRIC, "direct"),
        (Nat.NO_UDP, Nat.RESTRICTED, "relay"),
    ],
)
def test_two_of_us_meet(lab: PathLab, mine: Nat, theirs: Nat, kind: str) -> None:
    lab.lab.set_nat("A", mine)
    lab.lab.set_nat("B", theirs)
    reached = lab.reach(within=15.0 if kind == "direct" else 2.0)
    assert (reached.kind, reached.echoes) == (kind, 2), reached.text


def test_a_forwarded_connection_outlives_the_loss_of_its_path_and_each_change_of_address(
    behind_nats: PathLab,
) -> None:
    """One session, as starting programs takes most of the time."""
    lab = behind_nats
    with lab.session() as session:
        assert session.direct(15.0) is not None, session.text
        lab.lab.set_nat("A", Nat.NO_UDP)
        session.echo_within(RECOVERS_WITHIN)
        assert "relay" in session.way, session.text
        lab.lab.set_nat("A", Nat.RESTRICTED)
        assert session.direct(15.0) is not None, session.text
        for side in "AB":
            lab.move(side)
            session.echo_within(RECOVERS_WITHIN)
            assert session.direct(RECOVERS_WITHIN) is not None, session.text


def test_a_connection_to_a_given_address_falls_back_to_its_spare_over_the_relay(
    lab: PathLab,
) -> None:
    lab.lab.set_nat("A", Nat.RESTRICTED)
    lab.lab.set_nat("B", Nat.OPEN)
    given = ("--peer-addr", "198.51.100.22:4433")
    with lab.session(*given, server_options=("--bind", "0.0.0.0:4433")) as session:
        assert session.way.startswith("198.51.100.22:4433"), session.text
        assert session.client.next("paths_seen", 10.0, paths=r"relay.*\(spare\)"), session.text
        assert session.ways == []
        lab.lab.set_nat("A", Nat.NO_UDP)
        assert session.echo_within(5.0) < 1.5, session.text
        assert "relay" in session.way, session.text
        lab.lab.set_nat("A", Nat.RESTRICTED)
        assert session.direct(15.0) is not None, session.text


def test_a_client_that_was_stopped_goes_on_within_three_seconds(behind_nats: PathLab) -> None:
    with behind_nats.session() as session:
        assert session.direct(15.0) is not None, session.text
        session.client.process.send_signal(signal.SIGSTOP)
        behind_nats.wait(6.0)
        session.client.process.send_signal(signal.SIGCONT)
        assert session.echo_within(3.0) < 3.0


def test_a_server_that_was_killed_and_begins_anew_is_found_by_the_word_of_its_relay(
    behind_nats: PathLab,
) -> None:
    """It has another port, so that the direct path leads nowhere."""
    with behind_nats.session() as session:
        assert session.direct(15.0) is not None, session.text
        session.server.process.kill()
        session.server.process.wait()
        again = behind_nats.server()
        try:
            session.sock.sendall(b"who is silent is asked every ten seconds only")
            lost = session.client.next("tunnel_lost", 10.0)
            assert lost is not None, session.text
            assert lost[1]["reason"] == "the peer has forgotten this connection"
            assert session.client.next("tunnel_up", 5.0), session.text
        finally:
            again.end()


def test_direct_only_never_forwards_over_a_relay(lab: PathLab) -> None:
    for side in "AB":
        lab.lab.set_nat(side, Nat.RESTRICTED)
    with lab.session("--direct-only") as session:
        assert session.up[1]["way"].startswith("198.51.100.22:"), session.text
        session.echo_within(5.0)
        paths = [event for _, event in session.client.seen if event["event"] == "paths_seen"]
        assert not any("relay" in text for text in paths[-1]["paths"][1:]), session.text
