import os

from tests.support.observed import PEER, SOURCE, TUNNEL, FakeObserved

from tunnel_rs import __version__, reports
from tunnel_rs.cli.overview import COUNTS, MAX_PROBLEMS, SAMPLE_IDLE, Overview


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def overview(clock: Clock | None = None, role: str = "server") -> Overview:
    return Overview("tunnel-rs", role, wall=lambda: 0.0, now=clock or Clock())


def test_before_anything_is_observed_the_program_is_starting() -> None:
    status = overview().status()
    assert (status.program, status.role, status.state) == ("tunnel-rs", "server", "starting")
    assert (status.version, status.pid) == (__version__, os.getpid())
    assert status.started == "1970-01-01T00:00:00.000Z"
    assert status.peers == () and status.send_rate is None
    assert status.counts == dict.fromkeys(COUNTS, 0)


def test_what_is_observed_is_shown_with_its_rates() -> None:
    clock, observed = Clock(), FakeObserved()
    view = overview(clock)
    view.observe(PEER, observed)
    assert view.status().peers[0].send_rate is None
    view.sample()
    clock.now += 2
    observed.moved, observed.sessions.totals = {3: (30, 20)}, (1020, 2000)
    view.sample()
    status = view.status()
    assert (status.peers[0].send_rate, status.peers[0].receive_rate) == (10.0, 0.0)
    assert (status.send_rate, status.receive_rate) == (10.0, 0.0)
    assert status.history == ((10.0, 0.0),) * 2
    assert (status.seconds, status.sent, status.received) == (2.0, 1020, 2000)
    assert (status.sessions_open, status.sessions_begun) == (2, 7)
    assert status.tunnels == (TUNNEL,) and status.endpoint_id == PEER


def test_an_idle_program_is_sampled_ever_more_rarely_until_something_moves() -> None:
    clock, observed = Clock(), FakeObserved()
    view = overview(clock)
    assert view.sample() == 1, "there is nothing to observe yet"
    view.observe(PEER, observed)

    def gaps(count: int) -> list[float]:
        told = []
        for _ in range(count):
            told.append(view.sample())
            clock.now += told[-1]
        return told

    assert gaps(5) == [1, 2, 4, SAMPLE_IDLE, SAMPLE_IDLE]
    observed.sessions.totals = (5000, 5000)
    assert gaps(3) == [1, 2, 4]
    assert len(view.status().history) == 1 + 2 + 4 + 4 + 4 + 1 + 2 + 4


def test_who_looks_at_an_idle_program_sees_rates_of_the_last_second() -> None:
    clock, observed = Clock(), FakeObserved()
    view = overview(clock)
    view.observe(PEER, observed)
    view.sample()
    clock.now += 1
    assert view.sample() == 2
    clock.now += 1
    assert view.status().send_rate == 0
    observed.sessions.totals = (observed.sessions.totals[0] + 700, observed.sessions.totals[1])
    clock.now += 1
    assert view.status().send_rate == 700
    clock.now += 0.2
    assert view.sample() == 1, "that has just been done"
    assert view.status().send_rate == 700 and len(view.status().history) == 3


def test_a_server_is_ready_once_it_can_be_reached() -> None:
    view = overview()
    assert not view.is_ready
    view.report(reports.ServerReady(PEER, (), ("LAN",)))
    assert view.is_ready
    view.report(reports.Stopping("SIGTERM"))
    view.report(reports.ServerReady(PEER, (), ()))
    assert (view.state, view.is_ready) == ("stopping", False)


def test_a_client_is_ready_while_it_has_its_tunnel() -> None:
    view = overview(role="client")
    view.report(reports.Trying("LAN"))
    assert view.state == "connecting"
    view.report(reports.TunnelUp(PEER, "LAN", 0.1))
    view.report(reports.Trying("LAN"))
    assert view.is_ready
    view.report(reports.TunnelLost("no answer", 1.0))
    assert (view.state, view.reason, view.is_ready) == ("connecting", "no answer", False)


def test_problems_are_counted_by_kind_and_the_newest_kept() -> None:
    view = overview()
    view.report(reports.ClientRefused(None, "192.0.2.1:5", "too many"))
    view.report(reports.SessionRefused("tcp://10.0.0.1:1", "not allowed"))
    view.report(reports.SessionClosed(1, SOURCE, 1, 2, ""))
    view.report(reports.SessionClosed(2, SOURCE, 1, 2, "reset"))
    view.report(reports.Notice("warning", "look\nout"))
    view.report(reports.Notice("info", "fine"))
    counts = view.status().counts
    assert (counts["clients_refused"], counts["sessions_refused"]) == (1, 1)
    assert (counts["sessions_closed"], counts["sessions_failed"], counts["warnings"]) == (2, 1, 1)
    problems = view.status().problems
    assert [problem.kind for problem in problems] == [
        "clients_refused",
        "sessions_refused",
        "sessions_failed",
        "warnings",
    ]
    assert problems[-1].text == "look\\nout"
    for number in range(2 * MAX_PROBLEMS):
        view.report(reports.Notice("warning", str(number)))
    assert len(view.status().problems) == MAX_PROBLEMS
    assert view.status().problems[-1].text == str(2 * MAX_PROBLEMS - 1)
