"""Two paths to real iroh on which nothing happens for longer than its idle timeouts, 15 s for a
path and 30 s for the connection. `make iroh-versions` runs it; for the suite it takes too long."""

import asyncio

import pytest
from tests.support.iroh_paths import met, two_ways

pytestmark = pytest.mark.interop


@pytest.mark.parametrize("dialling", [True, False], ids=["we dial", "iroh dials"])
async def test_two_paths_outlive_40_seconds_of_silence(dialling: bool) -> None:
    async with met(dialling=dialling, nat=not dialling, slow=0.002) as pair:
        await pair.echo()
        await two_ways(pair, dialling)
        await pair.echo()
        open_before = {path.id for path in pair.ours.paths()}
        await asyncio.sleep(40)
        assert {path.id for path in pair.ours.paths()} == open_before
        await pair.echo()
