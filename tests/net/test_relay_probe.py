"""Measuring how far away a relay is."""

import socket

import pytest
from tests.support.relay_network import relay_server, url_of

from tunnel_rs.net import relay_probe
from tunnel_rs.net.relay_probe import measure
from tunnel_rs.net.relay_websocket import RelayClientSettings, relay_session
from tunnel_rs.proto.relay_addr import RelayUrl


async def test_a_relay_that_answers_has_a_latency() -> None:
    async with relay_server() as server, relay_session(RelayClientSettings()) as session:
        latency = await measure(url_of(server), session)
        assert latency is not None and 0 < latency < 1


async def test_a_relay_that_is_not_there_has_none() -> None:
    async with relay_session(RelayClientSettings()) as session:
        assert await measure(RelayUrl.parse("http://127.0.0.1:9/"), session) is None


async def test_a_relay_that_says_nothing_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_probe, "PROBE_TIMEOUT", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = RelayUrl.parse(f"http://127.0.0.1:{silent.getsockname()[1]}/")
        async with relay_session(RelayClientSettings()) as session:
            assert await measure(url, session) is None


async def test_another_kind_of_answer_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RelayUrl, "ping_url", property(lambda self: f"{self.text}nothing"))
    async with relay_server() as server, relay_session(RelayClientSettings()) as session:
        assert await measure(url_of(server), session) is None
