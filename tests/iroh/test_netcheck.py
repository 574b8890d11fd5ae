import time
from pathlib import Path

import pytest
from tests.support.discovery import dns_server
from tests.support.relay_network import LOOPBACK, relay_server, url_of
from tests.support.relay_peers import write_certificate
from tests.support.stun_server import stun_server

from tunnel_rs.errors import ConfigError
from tunnel_rs.iroh import netcheck as module
from tunnel_rs.iroh import netcheck_udp
from tunnel_rs.iroh.discovery_settings import DiscoverySettings
from tunnel_rs.iroh.netcheck import NetcheckSettings, netcheck, udp_servers
from tunnel_rs.iroh.netcheck_udp import QUIC, STUN, UdpServer
from tunnel_rs.proto.relay_addr import RelayUrl
from tunnel_rs.selfhost.relay_settings import RelayQuic, RelayTls
from tunnel_rs.values import HostPort


@pytest.fixture(autouse=True)
def at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netcheck_udp, "_ANYWHERE", {4: "127.0.0.1", 6: "::1"})
    monkeypatch.setattr("tunnel_rs.net.nat_type.STEP_TIMEOUT", 0.01)


async def test_everything_is_looked_at(tmp_path: Path) -> None:
    certificate, key = write_certificate(tmp_path)
    tls = RelayTls(certificate, key, LOOPBACK)
    quic = RelayQuic(certificate, key, LOOPBACK)
    async with (
        relay_server(tls=tls, quic=quic) as relay,
        dns_server() as discovery,
        stun_server() as (_, stun),
    ):
        addresses = relay.addresses
        assert addresses.https is not None and addresses.quic is not None
        found = await netcheck(
            NetcheckSettings(
                relays=(RelayUrl.parse(f"https://localhost:{addresses.https.port}/"),),
                discovery=DiscoverySettings(
                    publish_url=discovery.pkarr_url, resolve_url=discovery.pkarr_url
                ),
                stun_servers=(HostPort(stun.ip, stun.port),),
                ca_file=certificate,
                qad_port=addresses.quic.port,
            )
        )
    ipv4 = found.families[0]
    assert ipv4.answered and ipv4.behind_nat is False and ipv4.depends_on_destination is False
    assert [relay.let_in for relay in found.relays] == [True]
    assert found.discovery is not None and found.discovery.problem == ""
    assert len(found.nats) == 1
    assert found.clock_skew is not None and abs(found.clock_skew) < 2
    assert found.buffers is not None and found.buffers.receive > 0 and found.buffers.send > 0
    assert found.elapsed < 10 and found.unresolved == ()


async def test_a_wrong_clock_is_noticed() -> None:
    async with relay_server() as relay:
        settings = NetcheckSettings(relays=(url_of(relay),))
        fast = await netcheck(settings, clock=lambda: time.time_ns() // 1000 + 3_600_000_000)
    assert fast.clock_skew is not None and abs(fast.clock_skew - 3600) < 2


async def test_with_nothing_named_nobody_is_contacted() -> None:
    async def resolve(host: str) -> list[str]:
        raise AssertionError(f"{host} was looked up")

    found = await netcheck(NetcheckSettings(), resolve=resolve)
    assert (found.relays, found.discovery, found.nats, found.clock_skew) == ((), None, (), None)
    assert all(family.mappings == () for family in found.families)


async def test_a_system_that_tells_nothing_is_survived(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no such thing")

    monkeypatch.setattr(module, "local_interfaces", refuse)
    monkeypatch.setattr("tunnel_rs.net.udp.socket.socket", refuse)
    found = await netcheck(NetcheckSettings())
    assert found.buffers is None
    assert [family.bound for family in found.families] == [None, None]
    assert found.meaning()


async def test_a_ca_file_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="relay_ca_file"):
        await netcheck(NetcheckSettings(ca_file=tmp_path / "missing"))


def test_address_discovery_is_asked_of_relays_with_tls_only() -> None:
    settings = NetcheckSettings(
        relays=(RelayUrl.parse("https://r.example/"), RelayUrl.parse("http://p.example/")),
        stun_servers=(HostPort("s.example", 3478),),
        qad_port=5,
    )
    assert udp_servers(settings) == [
        UdpServer(HostPort("r.example", 5), QUIC),
        UdpServer(HostPort("s.example", 3478), STUN),
    ]
