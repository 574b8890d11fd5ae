import re

from tests.support.observed import PEER, FakeObserved

from tunnel_rs import __version__, reports
from tunnel_rs.cli.metrics import metrics
from tunnel_rs.cli.overview import Overview


def test_the_status_is_written_as_prometheus_text() -> None:
    view = Overview("tunnel-rs", "server", wall=lambda: 0.0, now=lambda: 5.0)
    view.observe(PEER, FakeObserved())
    view.report(reports.ServerReady(PEER, (), ()))
    view.report(reports.ClientRefused(None, "x", "no"))
    text = metrics(view.status())
    about = f'program="tunnel-rs",role="server",version="{__version__}"'
    for line in (
        f"tunnel_rs_info{{{about}}} 1",
        "tunnel_rs_ready 1",
        "tunnel_rs_peers 1",
        "tunnel_rs_sessions 2",
        "tunnel_rs_sessions_total 7",
        "tunnel_rs_penalised_sources 7",
        'tunnel_rs_bytes_total{direction="sent"} 1000',
        'tunnel_rs_events_total{kind="clients_refused"} 1',
        'tunnel_rs_peer_rtt_seconds{peer="d75a980182",link="3",kind="direct"} 0.0125',
        'tunnel_rs_peer_bytes_total{name="alice",peer="d75a980182",link="3",direction="sent"} 10',
    ):
        assert line in text.splitlines()
    assert 'kind="relay"' not in text, "a path that is not in use has no round trip"


def test_every_line_is_well_formed() -> None:
    text = metrics(Overview("tunnel-rs", "client", now=lambda: 0.0).status())
    sample = re.compile(r'[a-z_]+(\{([a-z]+="[^"\n]*",?)*\})? [0-9.e+-]+')
    assert text.endswith("\n")
    for line in text.splitlines():
        assert line.startswith(("# HELP ", "# TYPE ")) or sample.fullmatch(line)


def test_packets_are_told_of_a_vpn_only() -> None:
    view, observed = Overview("tunnel-rs-vpn", "server", now=lambda: 5.0), FakeObserved()
    view.observe(PEER, observed)
    assert "tunnel_rs_packets" not in metrics(view.status())
    observed.packets = reports.PacketStatus(3, 4, {"spoofed": 5})
    text = metrics(view.status()).splitlines()
    assert 'tunnel_rs_packets_total{direction="received"} 4' in text
    assert 'tunnel_rs_packets_dropped_total{reason="spoofed"} 5' in text
