"""Every scenario of two engines runs with stock and fast engines, and with one of each."""

from functools import partial
from typing import Protocol

import pytest
from hypothesis import settings
from tests.support.engines import PAIRS, Network

from tunnel_rs.proto.transport_settings import TransportSettings

settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")


class MakeNetwork(Protocol):
    """`Network` with the engines chosen."""

    def __call__(
        self,
        client_settings: TransportSettings = ...,
        server_settings: TransportSettings = ...,
        *,
        seed: int = ...,
        offload: bool = ...,
    ) -> Network: ...


@pytest.fixture(params=PAIRS)
def make_network(request: pytest.FixtureRequest) -> MakeNetwork:
    client, server = PAIRS[request.param]
    return partial(Network, make_engine=client, make_server=server)
