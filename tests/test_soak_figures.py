"""What a soak concludes from its samples (`bench/soak_figures.py`)."""

from dataclasses import replace

import pytest
from bench.soak_figures import (
    COLUMNS,
    Pace,
    Pulse,
    Sample,
    caption,
    counters,
    faults,
    growth,
    latency,
    lost_reconnects,
    middles,
    peers,
    percentile,
    quarters,
    row,
)
from hypothesis import given
from hypothesis import strategies as st

MB = 1_000_000


def sample(rss: int = 50 * MB, fds: int = 20, tasks: int = 9, sessions: int = 0) -> Sample:
    return Sample(0.0, rss, fds, 4, tasks, sessions, 1, 0)


def grown(by: int) -> list[Sample]:
    """Eight samples: warming up, then 50 MB, and in the last quarter `by` bytes more."""
    return [sample(rss) for rss in (10 * MB, 30 * MB, *[50 * MB] * 4, *[50 * MB + by] * 2)]


def pulse(p50: float | None, p99: float | None) -> Pulse:
    return Pulse(0.0, p50, p99, 0, 0, 7.0)


def test_the_warm_up_is_no_growth() -> None:
    assert growth(grown(0)) == 0


def test_growth_is_from_the_second_quarter_to_the_last() -> None:
    assert growth(grown(3 * MB)) == 3 * MB


def test_a_program_that_gave_everything_back_has_no_fault() -> None:
    assert not faults("client", grown(5 * MB), sample(), sample(fds=19, tasks=9))


def test_growth_of_memory_is_a_fault() -> None:
    assert faults("client", grown(6 * MB), sample(), sample()) == [
        "the client's memory grew by 6.0 MB"
    ]


@pytest.mark.parametrize(
    ("after", "what"),
    [
        (sample(fds=22), "2 descriptors"),
        (sample(tasks=10), "1 tasks"),
        (sample(sessions=3), "3 open sessions"),
    ],
)
def test_what_an_idle_program_did_not_give_back_is_a_fault(after: Sample, what: str) -> None:
    assert faults("server", grown(0), sample(), after) == [f"the server has {what} more"]


def test_quarters_compare_means_and_middles_medians() -> None:
    values = [9.0, 9.0, 9.0, 1.0, 2.0, 30.0, 9.0, 9.0, 9.0, 2.0, 4.0, 60.0]
    assert quarters(values) == (11.0, 22.0)
    assert middles(values) == (2.0, 4.0)


def test_too_few_samples_have_no_quarters() -> None:
    with pytest.raises(ValueError, match="too few"):
        quarters([1.0])


def test_percentiles_are_values_that_were_seen() -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert (percentile(values, 0.5), percentile(values, 0.99)) == (50.0, 99.0)
    assert percentile([], 0.5) is None


@given(st.lists(st.floats(0, 10), min_size=1), st.floats(0, 1))
def test_a_percentile_has_its_share_of_the_values_below_or_at_it(
    values: list[float], share: float
) -> None:
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values)


def test_counters_are_read_with_their_labels() -> None:
    text = '# HELP a_total Some\n# TYPE a_total counter\na_total{kind="x y"} 3\nb 0.5\n'
    assert counters(text) == {'a_total{kind="x y"}': 3.0, "b": 0.5}


def test_nobody_waits_without_a_rate() -> None:
    pace = Pace(0)
    assert [pace.wait(5.0) for _ in range(3)] == [0.0, 0.0, 0.0]


def test_turns_are_a_rate_apart() -> None:
    pace = Pace(4)
    assert [pace.wait(5.0) for _ in range(3)] == [0.0, 0.25, 0.5]


def test_turns_nobody_took_are_not_made_up_for() -> None:
    pace = Pace(4)
    pace.wait(5.0)
    assert [pace.wait(60.0), pace.wait(60.0)] == [0.0, 0.25]


def test_latency_leaves_out_the_time_the_link_was_out() -> None:
    pulses = [pulse(0.001, 0.01)] * 4 + [pulse(None, None)] * 9 + [pulse(0.002, 0.02)] * 4
    assert latency(pulses) == "p50 1.0 / 2.0 ms, p99 10.0 / 20.0 ms"


def test_a_row_fits_the_columns_of_the_table() -> None:
    found = row("client", grown(3 * MB), sample(), sample(tasks=8))
    assert dict(zip(COLUMNS, found, strict=True)) == {
        "side": "client",
        "RSS MB": "50.0 / 53.0",
        "growth MB": "+3.0",
        "fds": "20 / 20",
        "tasks": "9 / 9",
        "fds idle": "20 -> 20",
        "tasks idle": "9 -> 8",
    }


def test_the_caption_tells_the_load_of_the_tunnel_and_of_the_machine() -> None:
    load = {"minutes": 25.0, "connections": 60, "rate": 6.0, "flows": 3, "outage": 300.0}
    pulses = [{"machine_load": busy} for busy in (1.0, 14.0, 15.0)]
    text = caption({"given": load, "pulses": pulses}, "abc", 2)
    assert "25 minutes, 60 connections, 6 connections/s" in text
    assert "every 300 s" in text and "load average of 14" in text
    assert "as fast as they go" in caption({"given": load | {"rate": 0}, "pulses": pulses}, "", 2)


def test_each_link_that_was_closed_must_have_been_made_anew() -> None:
    before, after = sample(), replace(sample(), tunnels_up=3)
    assert not lost_reconnects(before, after, 2)
    assert lost_reconnects(before, after, 3) == ["3 links closed, but 2 begun anew"]


def test_the_peers_of_a_program_are_found_in_its_metrics() -> None:
    text = (
        'tunnel_rs_peer_rtt_seconds{peer="0000000000"} 0.1\n'
        'tunnel_rs_peer_bytes_total{name="a",peer="e1d1b8b222",link="1",direction="sent"} 0\n'
        'tunnel_rs_peer_bytes_total{name="a",peer="e1d1b8b222",link="1",direction="received"} 0\n'
    )
    assert peers(text) == ["e1d1b8b222"]
