"""Our endpoint and a real iroh one between which there are two ways, a relay and the direct one:
whichever the connection begins on, and whoever dials. Two direct ways, the first of them slow or
dead, are in `test_multipath_iroh`; 40 seconds of silence in `idle_iroh.py`."""

import asyncio

import pytest
from tests.support.iroh_ways import DIRECT, RELAY, Met, Way, met

pytestmark = pytest.mark.interop

EITHER_ROLE = pytest.mark.parametrize("dialling", [True, False], ids=["we dial", "iroh dials"])
EITHER_FIRST = pytest.mark.parametrize("first", [RELAY, DIRECT], ids="{} first".format)


@EITHER_ROLE
async def test_data_leaves_a_slow_relay_for_the_direct_path(dialling: bool) -> None:
    async with met(dialling=dialling, first=RELAY, slow=0.25) as pair:
        await pair.goes(DIRECT)
        assert await pair.echo(1000) < 0.5, "a round trip over the relay takes that"
        assert pair.path(RELAY) is not None, "to fall back to"


async def test_we_leave_a_slow_address_for_a_fast_one() -> None:
    """The other role, in which iroh chooses, is in `test_multipath_iroh`."""
    async with met(dialling=True, first=DIRECT, slow=0.25) as pair:
        fast = ("127.0.0.2", pair.engine.address[1])
        pair.ways[fast[0]] = Way()
        assert await pair.echo(1000) > 0.5
        assert pair.engine.open_path(fast, asyncio.get_running_loop().time())
        pair.ours.schedule_flush()
        await pair.until(lambda: pair.engine.address == fast)
        await pair.until(lambda: sum(not path.is_relay for path in pair.theirs.paths()) == 1)
        assert await pair.echo(1000) < 0.5, "a round trip to the first address takes that"


async def test_a_connection_that_begins_directly_gets_the_relay_as_a_spare() -> None:
    async with met(dialling=True, first=DIRECT) as pair:
        await pair.until(lambda: any(path.is_relay for path in pair.theirs.paths()))
        await pair.until(lambda: (spare := pair.path(RELAY)) is not None and spare.is_validated)
        assert pair.engine.address != pair.relay


@EITHER_ROLE
@pytest.mark.parametrize(
    ("first", "dead", "other"),
    [(RELAY, RELAY, DIRECT), (RELAY, DIRECT, RELAY), (DIRECT, DIRECT, RELAY)],
    ids=["relay first and dead", "relay first, direct dead", "direct first and dead"],
)
async def test_a_dead_path_stops_nothing(dialling: bool, first: str, dead: str, other: str) -> None:
    async with met(dialling=dialling, first=first) as pair:
        await pair.goes(DIRECT)
        await pair.echo()
        pair.ways[dead].dead = True
        assert await pair.echo(50_000, 30.0) < 8.0, "iroh alone takes 15 s"
        assert pair.way == other


@EITHER_FIRST
@EITHER_ROLE
async def test_keys_are_updated_with_both_ways(dialling: bool, first: str) -> None:
    """iroh does so once by itself, after at most 1000 packets."""
    async with met(dialling=dialling, first=first) as pair:
        await pair.has_both_ways()
        await pair.goes(DIRECT)
        phases = set()
        for turn in range(4):
            if turn == 2:
                pair.ways[DIRECT].dead = True
            if turn % 2:
                pair.engine.request_key_update()
            await pair.echo(200_000)
            phases.add(pair.engine._keys.key_phase)
        assert phases == {0, 1}
        assert pair.way == RELAY


@EITHER_FIRST
@EITHER_ROLE
async def test_datagrams_pass_on_either_way(dialling: bool, first: str) -> None:
    async with met(dialling=dialling, first=first) as pair:
        await pair.has_both_ways()
        await pair.goes(DIRECT)
        await exchange_datagrams(pair, b"direct")
        pair.ways[DIRECT].dead = True
        await pair.echo()
        await pair.until(lambda: pair.way == RELAY)
        await exchange_datagrams(pair, b"over the relay")


async def exchange_datagrams(pair: Met, text: bytes) -> None:
    payloads = [text + bytes([number]) * 200 for number in range(20)]
    assert pair.stream.send_datagrams(payloads) == 0
    flow = bytes([pair.stream.stream_id // 4])
    got = [bytes(await pair.theirs.read_datagram()) for _ in payloads]
    assert sorted(got) == sorted(flow + payload for payload in payloads)
    pair.tape.datagrams.clear()
    for payload in payloads:
        pair.theirs.send_datagram(flow + payload)
    await pair.tape.until(lambda: len(pair.tape.datagrams) == len(payloads))
    assert sorted(pair.tape.datagrams) == sorted(payloads)
