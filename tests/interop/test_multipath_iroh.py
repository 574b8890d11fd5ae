"""Paths and NAT traversal with real iroh, both ways round: slow and dead first paths, key updates,
datagrams. Everything is on loopback; our side has two sockets, which are two ways. Forty seconds of
silence are in `idle_iroh.py`, which `make iroh-versions` runs too."""

import asyncio
from typing import Any

import pytest
from tests.support.engine_driver import EngineDriver
from tests.support.iroh_paths import A, B, met, two_ways

from tunnel_rs.proto.fast_engine import FastEngine
from tunnel_rs.proto.multipath import MultipathEngine
from tunnel_rs.proto.path_state import PathAbandoned

pytestmark = [
    pytest.mark.interop,
    pytest.mark.timeout(150),  # what iroh does once a minute may have to be waited for
]

EITHER_ENGINE = pytest.mark.parametrize(
    "make", [FastEngine, MultipathEngine], ids=["fast", "plain"]
)
EITHER_ROLE = pytest.mark.parametrize("dialling", [True, False], ids=["we dial", "iroh dials"])


@EITHER_ENGINE
async def test_data_moves_to_a_path_that_we_open(make: type[MultipathEngine]) -> None:
    async with met(dialling=True, make=make) as pair:
        await pair.echo()
        second = await pair.open_second()
        await pair.second_way()
        pair.ours.running.select_path(second)
        pair.ours.pump()
        assert pair.ours.data_way() == B
        before = pair.ours.sent[A]
        await pair.echo(200_000, 40)
        assert pair.ours.sent[A] - before < 30_000
        assert len(pair.theirs.paths()) == 2
        pair.ours.running.abandon_path(0, pair.ours.now)
        pair.ours.pump()
        pair.ours.dead.add(A)
        await pair.echo(100_000)
        assert [path.id for path in pair.ours.paths()] == [second]


@EITHER_ENGINE
async def test_iroh_moves_to_the_faster_path_and_closes_the_other(
    make: type[MultipathEngine],
) -> None:
    async with met(dialling=False, make=make, nat=True, slow=0.020) as pair:
        await two_ways(pair, dialling=False)
        await pair.ours.until(lambda: bool(pair.ours.event(PathAbandoned)))
        await pair.echo(100_000)
        assert pair.ours.data_way() == B
        [abandoned] = pair.ours.event(PathAbandoned)
        assert abandoned.path_id == 0 and abandoned.by_peer


async def test_the_slow_first_path_is_told_from_the_fast_one() -> None:
    async with met(dialling=True, slow=0.150) as pair:
        await two_ways(pair, dialling=True)
        await pair.ours.until(lambda: None not in (rtt_of(pair.ours, A), rtt_of(pair.ours, B)))
        slow, fast = rtt_of(pair.ours, A), rtt_of(pair.ours, B)
        assert slow is not None and fast is not None and fast < slow >= 0.3
        await pair.echo()


def rtt_of(ours: EngineDriver, way: str) -> float | None:
    path = ours.path(way)
    return path.rtt if path is not None else None


@EITHER_ENGINE
async def test_a_dead_first_path_stops_nothing(make: type[MultipathEngine]) -> None:
    async with met(dialling=True, make=make) as pair:
        await pair.echo()
        await two_ways(pair, dialling=True)
        await pair.echo()
        timeout = pair.ours.running._recovery.get_probe_timeout()
        pair.ours.dead.add(A)
        started = pair.ours.now
        await pair.echo(50_000, 40)
        assert pair.ours.now - started < max(5.0, 10 * timeout), "iroh alone takes 15 s"
        assert pair.ours.data_way() == B
        [event] = pair.ours.event(PathAbandoned)
        assert event.path_id == 0 and not event.by_peer


@EITHER_ENGINE
async def test_a_first_path_may_die_once_iroh_has_left_it(make: type[MultipathEngine]) -> None:
    """A dialling iroh keeps one direct path, so that there is no other to fall back to."""
    async with met(dialling=False, make=make, nat=True, slow=0.020) as pair:
        await two_ways(pair, dialling=False)
        await pair.ours.until(lambda: bool(pair.ours.event(PathAbandoned)))
        pair.ours.dead.add(A)
        await pair.echo(100_000, 30)


@EITHER_ROLE
async def test_keys_are_updated_with_two_paths(dialling: bool) -> None:
    """iroh does so once by itself, after at most 1000 packets."""
    async with met(dialling=dialling, nat=not dialling) as pair:
        await two_ways(pair, dialling)
        phases = set()
        for turn in range(3):
            if dialling and pair.ours.path(A) is not None:
                pair.ours.running.select_path(pair.ours.paths()[turn % 2].id)
            if turn % 2:
                pair.ours.running.request_key_update()
            await pair.echo(200_000, 40)
            phases.add(pair.ours.running._keys.key_phase)
        assert phases == {0, 1}


@EITHER_ROLE
async def test_datagrams_pass_on_the_second_path(dialling: bool) -> None:
    async with met(dialling=dialling, nat=not dialling) as pair:
        await pair.echo()
        await two_ways(pair, dialling)
        path = pair.ours.path(B)
        assert path is not None
        pair.ours.running.select_path(path.id)
        await pair.echo()
        if pair.ours.path(A) is not None:
            assert pair.ours.data_way() == B
        engine = pair.ours.running
        payloads = [bytes([number]) * 200 for number in range(20)]
        engine.send_datagrams(pair.stream, payloads)
        pair.ours.pump()
        async with asyncio.timeout(5):
            got = [bytes(await pair.theirs.read_datagram()) for _ in payloads]
        flow = bytes([pair.stream // 4])
        assert sorted(got) == sorted(flow + payload for payload in payloads)
        for payload in payloads:
            pair.theirs.send_datagram(flow + payload)
        arrived: list[bytes] = []

        def complete() -> bool:
            arrived.extend(engine.take_datagrams().get(pair.stream, []))
            return len(arrived) == len(payloads)

        await pair.ours.until(complete, 5)
        assert sorted(arrived) == payloads


@EITHER_ROLE
async def test_iroh_and_we_find_each_others_sockets(dialling: bool) -> None:
    """A round of NAT traversal: our candidates, its candidates, probes, and a path."""
    async with met(dialling=dialling, nat=True) as pair:
        assert pair.ours.running.has_nat_traversal
        if dialling:
            pair.ours.running.set_candidates([pair.ways[1]], pair.ours.now)
            pair.ours.pump()
            await pair.second_way()
        else:
            await pair.tell_of_second_way()
        await pair.echo(100_000)


async def test_iroh_sees_our_status_and_our_paths() -> None:
    async with met(dialling=True) as pair:
        await pair.open_second()
        await pair.second_way()
        await pair.echo()
        remotes: list[Any] = [path.remote_addr for path in pair.theirs.paths()]
        assert len(remotes) == 2
