"""Tests of `tunnel_rs.net.namespace_agent` in the process; `netns.test_vpn_netns` has the real
thing."""

import json
import os
import socket
import sys
import threading

import pytest

from tunnel_rs.errors import LocalError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
if sys.platform == "linux":
    from tunnel_rs.net import namespace_agent
    from tunnel_rs.net.namespace_agent import Agent


@pytest.fixture
def pair() -> "tuple[socket.socket, socket.socket]":
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(5)
    return ours, theirs


def test_why_there_can_be_no_namespace_is_told(
    pair: "tuple[socket.socket, socket.socket]", monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise LocalError("no namespaces here")

    monkeypatch.setattr(namespace_agent, "enter_namespaces", refuse)
    ours, theirs = pair
    with ours, theirs:
        assert Agent(theirs).serve() == 1
        assert json.loads(ours.recv(1000)) == {"error": "no namespaces here"}


def test_the_device_is_handed_over_and_addresses_are_set_up_when_told(
    pair: "tuple[socket.socket, socket.socket]", monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []
    reader, writer = os.pipe()

    def configure(device: str, wanted: object) -> None:
        if seen:
            raise LocalError("not again")
        seen.append((device, wanted))

    monkeypatch.setattr(namespace_agent, "enter_namespaces", lambda: None)
    monkeypatch.setattr(namespace_agent, "create", lambda remedies: (writer, "tun-test"))
    monkeypatch.setattr(namespace_agent, "configure", configure)
    never, _kept = socket.socketpair()
    monkeypatch.setattr(namespace_agent, "_child_signal", lambda: never)
    ours, theirs = pair
    ended: list[int] = []
    thread = threading.Thread(target=lambda: ended.append(Agent(theirs).serve()))
    thread.start()
    data, fds, _, _ = socket.recv_fds(ours, 1000, 1)
    assert json.loads(data) == {"name": "tun-test"}
    os.write(fds[0], b"same")
    assert os.read(reader, 10) == b"same"
    wanted = {"addresses": [], "routes": [], "mtu": 1440, "resolvers": [], "domains": []}
    for error in (None, "not again"):
        ours.send(json.dumps({"device": wanted}).encode())
        assert json.loads(ours.recv(1000)) == {"error": error}
    assert seen == [("tun-test", wanted)]
    ours.close()
    thread.join(5)
    assert ended == [1]
    for fd in (fds[0], reader):
        os.close(fd)
    for end in (theirs, never, _kept):
        end.close()
