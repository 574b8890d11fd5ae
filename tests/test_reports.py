"""Reports: frozen, comparable, and free of secrets."""

import dataclasses
import typing

import pytest

from tunnel_rs import reports
from tunnel_rs.reports import Notice, Report, silent
from tunnel_rs.values import EndpointId, SocketAddr, SourceUrl

PEER = EndpointId(bytes(32))
HERE = SocketAddr("127.0.0.1", 22)
SOURCE = SourceUrl.parse("tcp://localhost:22")

EXAMPLES: list[Report] = [
    reports.ServerStarting(PEER, 2, ("127.0.0.0/8",), (), "tunnel-rs client"),
    reports.ServerReady(PEER, (HERE,), ("LAN",)),
    reports.RelayReady(("http://127.0.0.1:3340",), "everyone", HERE, None, None, None),
    reports.DiscoveryReady(("http://127.0.0.1:8080/pkarr",), (), HERE, None, HERE, None, None),
    reports.RelayOnline("https://relay.example/"),
    reports.RelayLost("https://relay.example/", "no answer"),
    reports.PathChanged("relay https://relay.example/", None, "direct 192.0.2.1:5"),
    reports.PathsSeen((reports.PathSeen("direct 192.0.2.1:5", "in use"),)),
    reports.ClientAuthenticated(PEER, "127.0.0.1:1"),
    reports.ClientRefused(None, "127.0.0.1:1", "auth_failed"),
    reports.ClientGone(PEER, "done"),
    reports.Trying("LAN"),
    reports.TunnelUp(PEER, "LAN", 0.25),
    reports.TunnelLost("timed out", 1.5),
    reports.Listening(HERE, None),
    reports.SessionOpened(1, SOURCE),
    reports.SessionClosed(1, SOURCE, 10, 20, ""),
    reports.SessionRefused("tcp://10.0.0.1:22", "not allowed"),
    reports.VpnServerStarting(PEER, 1, "vpn0", ("10.0.0.1/24",), "tunnel-rs-vpn client"),
    reports.VpnClientJoined(PEER, "127.0.0.1:1", ("10.0.0.2",)),
    reports.VpnUp("vpn0", ("10.0.0.2/24",), ("0.0.0.0/0",)),
    reports.Stopping("SIGTERM"),
    Notice("info", "hello"),
]


def test_there_is_an_example_of_every_report() -> None:
    kinds = {v for v in vars(reports).values() if isinstance(v, type) and issubclass(v, Report)}
    assert {type(example) for example in EXAMPLES} == kinds - {Report}


@pytest.mark.parametrize("report", EXAMPLES, ids=lambda report: type(report).__name__)
def test_a_report_is_frozen_and_equal_to_its_copy(report: Report) -> None:
    field = dataclasses.fields(report)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(report, field, None)
    assert dataclasses.replace(report) == report
    assert not hasattr(report, "__dict__")


@pytest.mark.parametrize("report", EXAMPLES, ids=lambda report: type(report).__name__)
def test_a_report_can_hold_no_secret(report: Report) -> None:
    assert "Secret" not in str(typing.get_type_hints(type(report)))


def test_the_silent_reporter_takes_every_report() -> None:
    for report in EXAMPLES:
        silent(report)
