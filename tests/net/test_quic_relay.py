"""QUIC over relays, between endpoints of ours."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import pytest
from tests.support.endpoints import DEFAULTS
from tests.support.relay_network import relay_server, until, url_of
from tests.support.tape import Tape

from tunnel_rs.net import quic
from tunnel_rs.net.quic import QuicEndpoint
from tunnel_rs.net.quic_connection import QuicConnection
from tunnel_rs.net.quic_relay import LARGEST_DATAGRAM, QuicRelayFace
from tunnel_rs.net.relay_face import RelayFace
from tunnel_rs.net.udp import UdpSocket
from tunnel_rs.proto.raw_keys import Identity
from tunnel_rs.proto.relay_addr import RelayAddr
from tunnel_rs.proto.relay_handshake import RelayIdentity
from tunnel_rs.values import EndpointId, Secret, SocketAddr


@dataclass
class End:
    """An endpoint that has relays and nothing else."""

    quic: QuicEndpoint
    relays: RelayFace

    @property
    def id(self) -> EndpointId:
        return self.quic.identity.endpoint_id

    def at(self, url: str) -> RelayAddr:
        return RelayAddr(url, self.id)


@asynccontextmanager
async def end(seed: int, *, accept: bool = False) -> AsyncIterator[End]:
    identity = Identity(Secret(bytes([seed]) * 32))
    endpoint = QuicEndpoint(identity, DEFAULTS, accept=accept)
    relays = RelayFace(RelayIdentity(identity.endpoint_id, identity.private_key.sign), endpoint)
    endpoint.add_face(QuicRelayFace(relays))
    try:
        yield End(endpoint, relays)
    finally:
        endpoint.close(0, "done")
        await relays.close()


async def connected(client: End, server: End, url: str) -> tuple[QuicConnection, QuicConnection]:
    server.relays.keep(url)
    await server.relays.wait_connected(url)
    dialled = client.quic.dial(server.id, [server.at(url)], DEFAULTS)
    accepted = await server.quic.accept()
    await dialled.handshaken
    return dialled, accepted


async def test_two_endpoints_exchange_a_megabyte_over_a_relay() -> None:
    async with relay_server() as relay, end(1) as client, end(2, accept=True) as server:
        url = url_of(relay).text
        dialled, accepted = await connected(client, server, url)
        assert (dialled.peer, accepted.peer) == (server.id, client.id)
        assert dialled.address == accepted.address == url
        accepted.open_window()
        payload = bytes(range(256)) * 4000
        stream = await dialled.open_stream()
        stream.write(payload)
        assert await Tape(await accepted.accept_stream()).read(len(payload)) == payload
        assert dialled.engine._max_datagram_size == LARGEST_DATAGRAM
        assert relay.metrics.frames_invalid == 0


async def test_the_goodbye_is_handed_to_the_relay_before_it_is_left() -> None:
    async with relay_server() as relay, end(1) as client, end(2, accept=True) as server:
        _, accepted = await connected(client, server, url_of(relay).text)
        client.quic.close(7, "enough")
        await client.relays.drain()
        await client.relays.close()
        error = await asyncio.wait_for(accepted.wait_closed(), 5)
        assert str(error) == "enough"


async def test_however_busy_a_server_is_over_a_relay_it_sends_nobody_away_to_retry(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tunnel_rs.proto.admission.RETRY_ABOVE", 0)
    async with relay_server() as relay, end(1) as client, end(2, accept=True) as server:
        dialled, _ = await connected(client, server, url_of(relay).text)
        assert dialled.engine._retry_count == 0


async def test_one_peer_behind_a_relay_cannot_take_all_places_of_newcomers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quic, "MAX_HANDSHAKES_OF_ONE", 2)
    half_open = replace(DEFAULTS, idle_timeout=30)
    async with relay_server() as relay, end(1) as greedy, end(2, accept=True) as server:
        url = url_of(relay).text
        server.relays.keep(url)
        await server.relays.wait_connected(url)
        # Connections that never finish: the answers to them do not arrive.
        monkeypatch.setattr(greedy.quic, "receive_train", lambda *_: None)
        for _ in range(5):
            greedy.quic.dial(server.id, [server.at(url)], half_open)
        await until(lambda: len(server.quic._handshakes) == 2)
        async with end(3) as honest:
            dialled = honest.quic.dial(server.id, [server.at(url)], DEFAULTS)
            await asyncio.wait_for(dialled.handshaken, 5)
        assert len(server.quic._handshakes) == 2


async def test_a_connection_survives_a_relay_that_is_away_and_is_back_at_once() -> None:
    async with relay_server() as relay, end(1) as client, end(2, accept=True) as server:
        dialled, accepted = await connected(client, server, url_of(relay).text)
        stream = await dialled.open_stream()
        stream.write(b"before")
        tape = Tape(await accepted.accept_stream())
        assert await tape.read(6) == b"before"
        where = relay.addresses.http
        await relay.close()
        told = asyncio.Event()
        dialled.on_unanswered = told.set
        client.quic.paths_lost(lambda address: isinstance(address, RelayAddr))
        assert dialled.engine.path_is_down and told.is_set()
        stream.write(b"after")
        async with relay_server(http_bind_addr=where):
            await client.relays.wait_connected(url_of(relay).text)
            await server.relays.wait_connected(url_of(relay).text)
            client.quic.ask_peers(lambda address: address == server.at(url_of(relay).text))
            assert not dialled.engine.path_is_down
            assert await asyncio.wait_for(tape.read(11), 5) == b"beforeafter"


async def test_events_of_other_addresses_concern_nobody() -> None:
    async with relay_server() as relay, end(1) as client, end(2, accept=True) as server:
        dialled, _ = await connected(client, server, url_of(relay).text)
        client.quic.paths_lost(lambda address: False)
        assert not dialled.engine.path_is_down


async def test_why_there_is_no_answer_is_known() -> None:
    async with relay_server() as relay, end(1) as client, end(2) as absent:
        url = url_of(relay).text
        assert client.quic.send_error(absent.at(url)) == "not connected"
        await client.relays.wait_connected(url)
        assert client.quic.send_error(absent.at(url)) == (
            "no answer through it; is the peer connected to this relay?"
        )
        await relay.close()
        await until(lambda: "refused" in client.quic.send_error(absent.at(url)).lower())


async def test_addresses_behind_relays_and_of_sockets_are_told_apart() -> None:
    async with end(1) as client:
        assert client.quic.reaches(RelayAddr("https://relay.example/", client.id))
        assert not client.quic.reaches(("192.0.2.7", 1))
        face = quic.UdpFace(UdpSocket.bind(SocketAddr("127.0.0.1", 0)))
        assert face.reaches(("192.0.2.7", 1))
        assert not face.reaches(RelayAddr("https://relay.example/", client.id))
        face.close()
