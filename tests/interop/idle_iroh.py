"""Two paths to real iroh on which nothing happens for longer than its idle timeouts, 15 s for a
path and 30 s for the connection. `make iroh-versions` runs it; for the suite it takes too long."""

import asyncio

import pytest
from tests.support import iroh_ways
from tests.support.iroh_paths import met, two_ways
from tests.support.iroh_ways import DIRECT, RELAY

pytestmark = pytest.mark.interop


EITHER_ROLE = pytest.mark.parametrize("dialling", [True, False], ids=["we dial", "iroh dials"])


@EITHER_ROLE
async def test_two_paths_outlive_40_seconds_of_silence(dialling: bool) -> None:
    async with met(dialling=dialling, nat=not dialling, slow=0.002) as pair:
        await pair.echo()
        await two_ways(pair, dialling)
        await pair.echo()
        open_before = {path.id for path in pair.ours.paths()}
        await asyncio.sleep(40)
        assert {path.id for path in pair.ours.paths()} == open_before
        await pair.echo()


@pytest.mark.parametrize("first", [RELAY, DIRECT], ids="{} first".format)
@EITHER_ROLE
async def test_relay_and_direct_path_outlive_40_seconds_of_silence(
    dialling: bool, first: str
) -> None:
    async with iroh_ways.met(dialling=dialling, first=first) as pair:
        await pair.has_both_ways()
        await pair.goes(DIRECT)
        await asyncio.sleep(40)
        assert pair.path(RELAY) is not None and pair.path(DIRECT) is not None
        await pair.goes(DIRECT, 0.1)
        await pair.echo()
        pair.ways[DIRECT].dead = True
        await pair.echo()
        assert pair.way == RELAY, "the spare one has stayed usable"
