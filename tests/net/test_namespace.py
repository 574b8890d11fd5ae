"""Tests of `tunnel_rs.net.namespace` with an agent played by the test; `netns.test_vpn_netns` has
the real thing."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from ipaddress import ip_address, ip_interface, ip_network

import pytest

from tunnel_rs.errors import LocalError
from tunnel_rs.net.host_network import DeviceConfig, ForwardingConfig, RouteConfig
from tunnel_rs.net.threads import in_thread

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
if sys.platform == "linux":
    from tunnel_rs.net import namespace as module
    from tunnel_rs.net.namespace import Namespace

DEVICE = DeviceConfig((ip_interface("10.7.0.2/24"),), 1440, connected=False)
ROUTES = RouteConfig((ip_network("0.0.0.0/0"),), resolvers=(ip_address("10.7.0.1"),))


class Agent:
    """The other end of the socket, and a process that waits for a signal in its place."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        ours, self.end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.end.settimeout(5)
        self.process = subprocess.Popen(["sleep", "60"])
        monkeypatch.setattr(module, "_start_agent", lambda: (self.process, ours))

    def hand_over(self) -> None:
        reader, writer = os.pipe()
        socket.send_fds(self.end, [b'{"name": "tunnel0"}'], [reader])
        os.close(reader)
        os.close(writer)

    def answer(self, error: str | None) -> dict[str, object]:
        message: dict[str, object] = json.loads(self.end.recv(65_536))
        self.end.send(json.dumps({"error": error}).encode())
        return message


async def opened(agent: Agent) -> "Namespace":
    agent.hand_over()
    namespace, tun = await Namespace.open(["true", "x"])
    assert tun.name == "tunnel0"
    tun.close()
    return namespace


async def told(work: Callable[[], dict[str, object]], change: "object") -> dict[str, object]:
    import asyncio

    answering = asyncio.create_task(in_thread(work))
    await change  # type: ignore[misc]
    return await answering


async def test_addresses_and_routes_are_sent_and_then_the_command_runs_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    agent = Agent(monkeypatch)
    namespace = await opened(agent)
    await namespace.clean("tunnel0", client=True)
    await namespace.set_device("tunnel0", DEVICE)
    message = await told(lambda: agent.answer(None), namespace.set_routes("tunnel0", ROUTES))
    assert message["device"] == {
        "addresses": ["10.7.0.2/24"],
        "mtu": 1440,
        "routes": ["0.0.0.0/0"],
        "resolvers": ["10.7.0.1"],
        "domains": [],
    }
    assert json.loads(agent.end.recv(1000)) == {"run": ["true", "x"]}
    assert namespace.runs
    await told(lambda: agent.answer(None), namespace.set_routes("tunnel0", ROUTES))
    await namespace.undo()
    assert agent.process.returncode == -15
    assert agent.end.recv(1000) == b"", "no second command"
    agent.end.close()


async def test_what_the_agent_could_not_do_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = Agent(monkeypatch)
    namespace = await opened(agent)
    await namespace.set_device("tunnel0", DEVICE)
    with pytest.raises(LocalError, match="no such route"):
        await told(lambda: agent.answer("no such route"), namespace.set_routes("x", ROUTES))
    assert not namespace.runs
    agent.process.terminate()
    await namespace.undo()
    agent.end.close()


async def test_why_there_is_no_namespace_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = Agent(monkeypatch)
    agent.end.send(b'{"error": "no namespaces here"}')
    agent.process.terminate()
    with pytest.raises(LocalError, match="no namespaces here"):
        await Namespace.open(["true"])
    agent.end.close()


async def test_an_agent_that_ends_at_once_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = Agent(monkeypatch)
    agent.end.close()
    agent.process.terminate()
    with pytest.raises(LocalError, match="ended before it was set up"):
        await Namespace.open(["true"])


async def test_a_server_is_not_for_namespaces(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = Agent(monkeypatch)
    namespace = await opened(agent)
    with pytest.raises(LocalError, match="cannot run in a namespace"):
        await namespace.set_forwarding("x", ForwardingConfig(True, True, True, True))
    agent.process.terminate()
    await namespace.undo()
    agent.end.close()
