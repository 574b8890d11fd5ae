import json
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.samples import ENDPOINT_ID

from tunnel_rs import reports
from tunnel_rs.cli import wording
from tunnel_rs.cli.wording import Level
from tunnel_rs.reports import Report
from tunnel_rs.values import EndpointId, SocketAddr, SourceUrl

PEER = EndpointId.parse(ENDPOINT_ID)
SOURCE = SourceUrl.parse("tcp://127.0.0.1:22")
HERE = SocketAddr("127.0.0.1", 2222)

SAMPLES: list[tuple[Report, Level, str, str]] = [
    (
        reports.ServerStarting(PEER, 2, ("127.0.0.0/8", "::1/128"), (), "tunnel-rs client -n x"),
        Level.INFO,
        f"EndpointId: {ENDPOINT_ID}\n"
        "Auth tokens: 2 token(s) configured\n"
        "Allowed TCP: 127.0.0.0/8, ::1/128\n"
        "Allowed UDP: nothing\n"
        "On the client, with an auth token in place of TOKEN:\n"
        "  tunnel-rs client -n x",
        '"event":"starting"',
    ),
    (
        reports.ServerReady(PEER, (HERE,), ("LAN", "127.0.0.1:2222")),
        Level.INFO,
        "Waiting for clients to connect... (reachable by LAN, 127.0.0.1:2222)",
        f'{{"event":"ready","endpoint_id":"{ENDPOINT_ID}","addresses":["127.0.0.1:2222"],',
    ),
    (
        reports.RelayOnline("https://relay.example/"),
        Level.INFO,
        "online at relay https://relay.example/",
        '{"event":"relay_online","relay":"https://relay.example/"}',
    ),
    (
        reports.RelayLost("https://relay.example/", "no answer"),
        Level.WARNING,
        "relay https://relay.example/ is lost: no answer; trying again",
        '{"event":"relay_lost","relay":"https://relay.example/","reason":"no answer"}',
    ),
    (
        reports.PathChanged("direct 192.0.2.1:5", 0.012, "relay https://relay.example/"),
        Level.INFO,
        "direct 192.0.2.1:5, 12 ms (was relay https://relay.example/)",
        '{"event":"path_changed","way":"direct 192.0.2.1:5","rtt":0.012,"before":"relay',
    ),
    (
        reports.PathChanged("relay https://relay.example/", None, "direct 192.0.2.1:5", PEER),
        Level.INFO,
        "client d75a980182: relay https://relay.example/ (was direct 192.0.2.1:5)",
        '"rtt":null',
    ),
    (
        reports.PathChanged("direct 192.0.2.1:5", 0.0004, "direct 192.0.2.1:6"),
        Level.INFO,
        "direct 192.0.2.1:5, 0.4 ms (was direct 192.0.2.1:6)",
        '"event":"path_changed"',
    ),
    (
        reports.PathsSeen(
            (
                reports.PathSeen("direct 192.0.2.1:5", "in use"),
                reports.PathSeen("relay https://relay.example/", "spare"),
            )
        ),
        Level.DETAIL,
        "paths: direct 192.0.2.1:5 (in use), relay https://relay.example/ (spare)",
        '"paths":["direct 192.0.2.1:5 (in use)","relay https://relay.example/ (spare)"]',
    ),
    (
        reports.ClientAuthenticated(PEER, "192.0.2.1:5"),
        Level.INFO,
        "client d75a980182 at 192.0.2.1:5: connected",
        '"event":"client_authenticated"',
    ),
    (
        reports.ClientAuthenticated(PEER, "192.0.2.1:5", "alice", "token"),
        Level.INFO,
        "client d75a980182 (alice) at 192.0.2.1:5: connected",
        '"name":"alice","by":"token"',
    ),
    (
        reports.Stopping("SIGTERM"),
        Level.INFO,
        "stopping; press Ctrl-C again to end at once",
        '{"event":"stopping","signal":"SIGTERM"}',
    ),
    (
        reports.ClientRefused(PEER, "192.0.2.1:5", "wrong token"),
        Level.WARNING,
        "client d75a980182 at 192.0.2.1:5: refused: wrong token",
        '"event":"client_refused"',
    ),
    (
        reports.ClientRefused(None, "192.0.2.1:5", "too many"),
        Level.WARNING,
        "connection from 192.0.2.1:5: refused: too many",
        '"peer":null',
    ),
    (
        reports.ClientGone(PEER, "done"),
        Level.INFO,
        "client d75a980182: gone: done",
        '"event":"client_gone"',
    ),
    (reports.Trying("LAN"), Level.INFO, "trying LAN", '{"event":"trying","way":"LAN"}'),
    (
        reports.TunnelUp(PEER, "LAN", 0.1234),
        Level.INFO,
        "tunnel to d75a980182 is up by LAN after 0.12 s",
        '"elapsed":0.1234',
    ),
    (
        reports.TunnelLost("timed out", 2.0),
        Level.WARNING,
        "tunnel is down: timed out; trying again in 2.0 s",
        '"retry_in":2.0',
    ),
    (
        reports.TunnelLost("refused", None),
        Level.WARNING,
        "tunnel is down: refused; giving up",
        '"retry_in":null',
    ),
    (
        reports.Listening(HERE, SOURCE),
        Level.INFO,
        "listening on 127.0.0.1:2222 -> tcp://127.0.0.1:22",
        '"source":"tcp://127.0.0.1:22"',
    ),
    (
        reports.Listening(HERE, None),
        Level.INFO,
        "listening on 127.0.0.1:2222 (SOCKS5 proxy)",
        '"source":null',
    ),
    (
        reports.SessionOpened(3, SOURCE),
        Level.DETAIL,
        "session 3: opened to tcp://127.0.0.1:22",
        '"session":3',
    ),
    (
        reports.SessionClosed(3, SOURCE, 10, 20, ""),
        Level.DETAIL,
        "session 3: closed to tcp://127.0.0.1:22, 10 B out, 20 B in",
        '"sent":10,"received":20,"reason":""',
    ),
    (
        reports.SessionClosed(3, SOURCE, 10, 20, "reset"),
        Level.DETAIL,
        "session 3: closed to tcp://127.0.0.1:22, 10 B out, 20 B in: reset",
        '"reason":"reset"',
    ),
    (
        reports.SessionRefused("tcp://10.0.0.1:1", "not allowed"),
        Level.WARNING,
        "request for tcp://10.0.0.1:1 refused: not allowed",
        '"event":"session_refused"',
    ),
    (
        reports.RelayReady(("https://r.example/",), "everyone", HERE, HERE, HERE, None),
        Level.INFO,
        "Relay is ready; HTTP (captive portal check only): 127.0.0.1:2222\nHTTPS: 127.0.0.1:2222\n"
        "QUIC address discovery: 127.0.0.1:2222 (UDP)\nAccess: everyone\n"
        "Use it with: --relay-url https://r.example/",
        '"event":"ready","urls":["https://r.example/"],"access":"everyone"',
    ),
    (
        reports.RelayReady(("http://127.0.0.1/",), "everyone", HERE, None, None, HERE),
        Level.INFO,
        "Relay is ready; HTTP, without TLS: 127.0.0.1:2222\n"
        "Metrics: http://127.0.0.1:2222/metrics\nAccess: everyone\n"
        "Use it with: --relay-url http://127.0.0.1/",
        '"https":null,"quic":null,"metrics":"127.0.0.1:2222"',
    ),
    (
        reports.DiscoveryReady(
            ("http://d.example/pkarr",), ("d.example.",), HERE, HERE, HERE, HERE, None
        ),
        Level.INFO,
        "Discovery server is ready\nHTTP: 127.0.0.1:2222\nHTTPS: 127.0.0.1:2222\n"
        "DNS: 127.0.0.1:2222 (UDP and TCP), d.example.\nMetrics: http://127.0.0.1:2222/metrics\n"
        "Records: in memory, gone when this ends\n"
        "Use it with: --dns-server http://d.example/pkarr",
        '"origins":["d.example."]',
    ),
    (
        reports.VpnServerStarting(
            PEER, 1, "vpn0", ("10.0.0.1/24", "fd00::1/64"), "tunnel-rs-vpn x"
        ),
        Level.INFO,
        f"EndpointId: {ENDPOINT_ID}\n"
        "Auth tokens: 1 token(s) configured\n"
        "Device: vpn0 with 10.0.0.1/24, fd00::1/64\n"
        "On the client, with an auth token in place of TOKEN:\n"
        "  tunnel-rs-vpn x",
        '"event":"starting"',
    ),
    (
        reports.VpnClientJoined(PEER, "192.0.2.1:5", ("10.0.0.2",)),
        Level.INFO,
        "client d75a980182 at 192.0.2.1:5: has 10.0.0.2",
        '"event":"vpn_client_joined"',
    ),
    (
        reports.VpnUp("vpn0", ("10.0.0.2/24",), ("0.0.0.0/0",)),
        Level.INFO,
        "vpn0 has 10.0.0.2/24; into it go 0.0.0.0/0",
        '"event":"vpn_up"',
    ),
    (
        reports.VpnUp("vpn0", ("10.0.0.2/24",), ()),
        Level.INFO,
        "vpn0 has 10.0.0.2/24",
        '"routes":[]',
    ),
    (reports.Notice("debug", "x"), Level.DEBUG, "x", '"level":"debug"'),
    (reports.Notice("info", "x"), Level.INFO, "x", '"event":"notice"'),
    (reports.Notice("warning", "x"), Level.WARNING, "warning: x", '"text":"x"'),
]


@pytest.mark.parametrize(("report", "level", "text", "json_part"), SAMPLES)
def test_every_report_has_its_words_and_its_event(
    report: Report, level: Level, text: str, json_part: str
) -> None:
    line = wording.line(report)
    assert (line.level, line.text) == (level, text)
    assert json_part in wording.event(report)


@pytest.mark.parametrize("report", [sample[0] for sample in SAMPLES], ids=repr)
def test_an_event_is_one_json_object_with_all_fields(report: Report) -> None:
    event = wording.event(report)
    assert "\n" not in event
    assert set(json.loads(event)) == {"event", *(field.name for field in fields(report))}


def test_no_kind_of_report_is_without_words() -> None:
    # By name: dataclasses with slots leave the class they were made from behind.
    known = {kind.__name__ for kind in Report.__subclasses__()}
    assert {type(sample[0]).__name__ for sample in SAMPLES} == known


@given(st.text())
def test_what_a_peer_wrote_cannot_steer_the_terminal(reason: str) -> None:
    for report in (
        reports.TunnelLost(reason, None),
        reports.SessionRefused(reason, reason),
        reports.Notice("info", reason),
        reports.ClientGone(PEER, reason),
    ):
        assert wording.line(report).text.isprintable()
        assert wording.event(report).isprintable()


def test_control_characters_are_shown_as_escapes() -> None:
    assert wording.printable("a\x1b[31m\nb\u202e") == "a\\x1b[31m\\nb\\u202e"
