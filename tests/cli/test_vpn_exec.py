"""Tests of `tunnel-rs-vpn exec` before there is a namespace; the rest is in `netns`."""

import signal

import pytest
from tests.support.program import run_vpn
from tests.support.samples import ENDPOINT_ID, TOKEN

from tunnel_rs.cli.vpn_exec import _CommandSignals
from tunnel_rs.errors import LocalError
from tunnel_rs.net.namespace import Namespace


def test_a_command_is_needed() -> None:
    ended = run_vpn("exec", "-n", ENDPOINT_ID, "--auth-token", TOKEN)
    assert ended.status == 2
    assert "COMMAND" in ended.err.upper()


def test_options_behind_the_command_are_the_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, ...]] = []

    async def refuse(command: tuple[str, ...]) -> None:
        seen.append(command)
        raise LocalError("no namespaces here")

    monkeypatch.setattr(Namespace, "open", refuse)
    ended = run_vpn("exec", "-n", ENDPOINT_ID, "--auth-token", TOKEN, "ls", "--json", "-v")
    assert ended.status == 1
    assert "no namespaces here" in ended.err
    assert seen == [("ls", "--json", "-v")]


class FakeNamespace:
    runs = False


async def test_ctrl_c_is_the_commands_once_it_runs() -> None:
    namespace = FakeNamespace()
    signals = _CommandSignals(namespace)  # type: ignore[arg-type]
    namespace.runs = True
    signals.received(signal.SIGINT)
    assert not signals.first.done()
    signals.received(signal.SIGTERM)
    assert signals.first.done()
    before = _CommandSignals(FakeNamespace())  # type: ignore[arg-type]
    before.received(signal.SIGINT)
    assert before.first.done()
