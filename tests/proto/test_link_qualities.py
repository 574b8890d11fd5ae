"""Connections over links of nine qualities beside a relay, on a virtual clock."""

import pytest
from tests.support.link_quality import QUALITIES, Quality
from tests.support.link_runs import run_link

HOPELESS = 0.2
"""Share of loss at which data may go back to the relay for a while."""


@pytest.mark.parametrize("quality", QUALITIES, ids=lambda each: each.text)
def test_a_link_is_found_used_and_kept(quality: Quality) -> None:
    outcome = run_link(quality, seed=1, most=300_000)
    assert outcome.connected < 1.0
    assert outcome.direct is not None and outcome.direct < 5.0
    if quality.loss < HOPELESS:
        assert outcome.is_direct and not outcome.falls
    assert min(outcome.up, outcome.down) > min(quality.rate * 125_000, 200_000) / 20
