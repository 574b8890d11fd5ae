import asyncio
from typing import Any

import pytest
from tests.support.observed import PEER, SOURCE, TUNNEL, FakeObserved

from tunnel_rs.cli import control_commands
from tunnel_rs.cli.control_commands import KILLED, client_commands, server_commands
from tunnel_rs.errors import LocalError, UnreachableError
from tunnel_rs.forward.settings import Tunnel
from tunnel_rs.reports import TunnelStatus
from tunnel_rs.values import SocketAddr


class Steered(FakeObserved):
    """A server and a client in one."""

    def __init__(self) -> None:
        super().__init__()
        self.disconnected: list[str] = []
        self.answers = asyncio.Event()
        self.answers.set()
        self.times = {str(PEER): 0.0123456789}

    async def ping(self) -> dict[str, float]:
        await self.answers.wait()
        return self.times

    def disconnect(self, peer: str, reason: str) -> int:
        self.disconnected.append(peer)
        assert reason == KILLED
        return str(PEER).startswith(peer)

    async def add_tunnel(self, tunnel: Tunnel) -> TunnelStatus:
        added = TunnelStatus(2, tunnel.source, (SocketAddr("127.0.0.1", tunnel.target.port),))
        self.tunnels += (added,)
        return added

    def remove_tunnel(self, number: int) -> bool:
        self.tunnels = tuple(tunnel for tunnel in self.tunnels if tunnel.tunnel != number)
        return True


async def on_server(steered: Steered, **request: Any) -> Any:
    return await server_commands(steered, lambda: "one token")[request["command"]](request)


async def on_client(steered: Steered, **request: Any) -> Any:
    return await client_commands(steered)[request["command"]](request)


async def test_a_session_is_killed_by_its_number() -> None:
    steered = Steered()
    for put in (on_server, on_client):
        assert await put(steered, command="kill", session=4) == {"session": 4}
        for number in (5, "4", None):
            with pytest.raises(LocalError, match="no session .* is open; `tunnel-rs ls`"):
                await put(steered, command="kill", session=number)
    assert (4, KILLED) in steered.sessions.aborted


async def test_a_client_is_disconnected_by_the_beginning_of_its_id() -> None:
    steered = Steered()
    answer = await on_server(steered, command="kill", peer=str(PEER)[:10].upper())
    assert answer == {"clients": 1}
    assert steered.disconnected == [str(PEER)[:10]]
    with pytest.raises(LocalError, match="no client with the id"):
        await on_server(steered, command="kill", peer="00" * 10)
    for short in ("d75a", "", 7):
        with pytest.raises(LocalError, match="at least 10 characters"):
            await on_server(steered, command="kill", peer=short)


async def test_a_server_reads_its_settings_again() -> None:
    assert await on_server(Steered(), command="reload") == {"settings": "one token"}


async def test_the_peers_are_asked_over_their_links(monkeypatch: pytest.MonkeyPatch) -> None:
    steered = Steered()
    assert await on_client(steered, command="ping") == {"seconds": {str(PEER): 0.012346}}
    steered.times = {}
    with pytest.raises(UnreachableError, match="no connection to ask over"):
        await on_server(steered, command="ping")
    monkeypatch.setattr(control_commands, "PING_TIMEOUT", 0.01)
    steered.answers.clear()
    with pytest.raises(UnreachableError, match=r"no answer in 0\.01 s"):
        await on_server(steered, command="ping")


async def test_tunnels_are_added_and_removed_by_number_or_address() -> None:
    steered = Steered()
    added = await on_client(steered, command="add", source=str(SOURCE), target="127.0.0.1:8022")
    assert added["tunnel"] == {
        "tunnel": 2,
        "source": str(SOURCE),
        "addresses": ["127.0.0.1:8022"],
    }
    assert (await on_client(steered, command="rm", tunnel=2))["tunnel"]["tunnel"] == 2
    removed = await on_client(steered, command="rm", tunnel=str(TUNNEL.addresses[0]))
    assert removed["tunnel"]["tunnel"] == 1
    assert steered.tunnels == ()
    with pytest.raises(LocalError, match=r"no tunnel '1' here; `tunnel-rs ls`"):
        await on_client(steered, command="rm", tunnel=1)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, "source is missing, or no text"),
        ({"source": "tcp://a:1"}, "target is missing"),
        ({"source": 7, "target": "a:1"}, "source is missing, or no text"),
        ({"source": "http://a", "target": "a:1"}, "must start with tcp:// or udp://"),
        ({"source": "tcp://a:1", "target": "udp://a:1"}, "differ in protocol"),
    ],
)
async def test_a_tunnel_that_makes_no_sense_is_refused(fields: Any, says: str) -> None:
    with pytest.raises(LocalError, match=says):
        await on_client(Steered(), command="add", **fields)
