"""The relays of an endpoint: home, states, and what is told of them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.support.endpoints import DEFAULTS
from tests.support.relay_network import LOOPBACK, relay_client, relay_server, until, url_of
from tests.support.relay_peers import write_certificate

from tunnel_rs.errors import ConfigError
from tunnel_rs.iroh.relays import EndpointRelays
from tunnel_rs.iroh.settings import EndpointSettings
from tunnel_rs.net.quic import QuicEndpoint
from tunnel_rs.net.relay import RelayPeerGone
from tunnel_rs.proto.raw_keys import Identity
from tunnel_rs.proto.relay_access import SharedToken
from tunnel_rs.proto.relay_addr import RelayAddr, RelayUrl
from tunnel_rs.proto.relay_handshake import RelayIdentity
from tunnel_rs.reports import Notice, RelayLost, RelayOnline, Report
from tunnel_rs.selfhost.relay_settings import RelayTls
from tunnel_rs.values import Secret

NOBODY = RelayUrl.parse("http://127.0.0.1:9/")


@dataclass
class Scene:
    quic: QuicEndpoint
    relays: EndpointRelays
    reports: list[Report] = field(default_factory=list)
    homes: list[str | None] = field(default_factory=list)
    ups: list[None] = field(default_factory=list)

    def of(self, kind: type[Report]) -> list[Report]:
        return [report for report in self.reports if isinstance(report, kind)]

    @property
    def texts(self) -> list[tuple[str, str]]:
        return [(each.level, each.text) for each in self.reports if isinstance(each, Notice)]


@asynccontextmanager
async def relays(
    *urls: RelayUrl, at_home: bool = True, ca_file: Path | None = None, seed: int = 1
) -> AsyncIterator[Scene]:
    quic = QuicEndpoint(Identity(Secret(bytes([seed]) * 32)), DEFAULTS, accept=at_home)
    settings = EndpointSettings(relays=urls, relay_ca_file=ca_file)
    reports: list[Report] = []
    homes: list[str | None] = []
    ups: list[None] = []
    made = EndpointRelays(
        quic,
        settings,
        reports.append,
        at_home=at_home,
        on_home=homes.append,
        on_up=lambda: ups.append(None),
    )
    made.start()
    try:
        yield Scene(quic, made, reports, homes, ups)
    finally:
        quic.close(0, "done")
        await made.close()
        await made.close()


async def test_a_server_is_online_once_its_relay_has_let_it_in() -> None:
    async with relay_server() as server, relays(url_of(server)) as scene:
        assert scene.relays.home is None
        await scene.relays.wait_online()
        url = url_of(server).text
        assert scene.relays.home == url and scene.homes == [url]
        assert scene.reports == [RelayOnline(url)]
        assert scene.ups == [None] and scene.relays.problems == ""


async def test_a_client_connects_only_when_it_has_something_to_send() -> None:
    async with relay_server() as server, relays(url_of(server), at_home=False) as scene:
        await until(lambda: True)
        assert len(server._roster) == 0 and scene.relays.home is None
        where = RelayAddr(url_of(server).text, scene.quic.identity.endpoint_id)
        scene.quic.send_trains([(b"x" * 1200, 1200, where)])
        await until(lambda: len(server._roster) == 1)
        assert scene.homes == []


async def test_a_relay_that_is_lost_is_told_once_and_again_when_it_is_back() -> None:
    async with relay_server() as server, relays(url_of(server)) as scene:
        await scene.relays.wait_online()
        await server.close()
        await until(lambda: scene.relays.home is None)
        await until(lambda: "refused" in scene.relays.problems)
        assert scene.relays.problems.startswith(f"{url_of(server)}: ")
        async with relay_server(http_bind_addr=server.addresses.http):
            await scene.relays.wait_online()
        url = url_of(server).text
        assert scene.homes[:3] == [url, None, url]
        assert len(scene.of(RelayLost)) >= 1
        assert all(level == "debug" for level, _ in scene.texts), "repetitions are not shown"


async def test_the_first_failure_of_a_relay_is_shown_to_who_runs_a_server() -> None:
    for at_home, level in ((True, "warning"), (False, "debug")):
        async with relays(NOBODY, at_home=at_home) as scene:
            where = RelayAddr(NOBODY.text, scene.quic.identity.endpoint_id)
            scene.quic.send_trains([(b"x", 1, where)])
            await until(lambda scene=scene: len(scene.texts) >= 3)  # type: ignore[misc]
            levels = [each for each, _ in scene.texts]
            assert levels[0] == level and set(levels[1:]) == {"debug"}
            assert scene.texts[0][1].startswith("relay http://127.0.0.1:9/: ")


async def test_of_several_dead_relays_the_reason_of_each_is_found_out() -> None:
    other = RelayUrl.parse("http://127.0.0.1:7/")
    async with relays(NOBODY, other) as scene:
        await until(lambda: scene.relays.problems.lower().count("refused") == 2)


async def test_a_token_in_the_url_lets_us_in_and_is_not_shown() -> None:
    async with relay_server(access=SharedToken((Secret("hush"),))) as server:
        url = url_of(server)
        async with relays(url._replace(token=Secret("hush"))) as scene:
            await scene.relays.wait_online()
            assert "hush" not in repr(scene.reports)
        async with relays(url._replace(token=Secret("wrong"))) as scene:
            await until(lambda: bool(scene.texts))
            assert "wrong" not in repr(scene.reports)
            level, text = scene.texts[0]
            assert level == "warning" and "not authorized" in text


async def test_a_private_authority_is_trusted_when_it_is_named(tmp_path: Path) -> None:
    chain, key = write_certificate(tmp_path)
    tls = RelayTls(chain, key, https_bind_addr=LOOPBACK)
    async with relay_server(tls=tls) as server:
        assert server.addresses.https is not None
        url = RelayUrl.parse(f"https://127.0.0.1:{server.addresses.https.port}")
        async with relays(url, ca_file=chain) as scene:
            await scene.relays.wait_online()
        async with relays(url) as scene:
            await until(lambda: bool(scene.texts))
            assert "certificate" in scene.texts[0][1]


async def test_a_file_without_certificates_is_a_mistake_in_the_configuration(
    tmp_path: Path,
) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("nothing")
    with pytest.raises(ConfigError, match="ca.pem"):
        async with relays(NOBODY, ca_file=file):
            pass


async def test_another_program_with_our_key_is_told() -> None:
    async with relay_server() as server, relays(url_of(server)) as scene:
        await scene.relays.wait_online()
        identity = scene.quic.identity
        twin = RelayIdentity(identity.endpoint_id, identity.private_key.sign)
        async with relay_client(url_of(server), twin) as (other, _):
            await other.wait_up()
            await until(lambda: any("uses our key" in text for _, text in scene.texts))
        await until(lambda: any("all is well again" in text for _, text in scene.texts))


async def test_a_peer_that_left_the_relay_is_asked_for() -> None:
    asked: list[bool] = []
    async with relays(NOBODY, at_home=False) as scene:
        gone = RelayAddr(NOBODY.text, scene.quic.identity.endpoint_id)
        scene.quic.ask_peers = lambda concerns: asked.extend(  # type: ignore[method-assign]
            [concerns(gone), concerns(RelayAddr("http://other/", gone.endpoint_id))]
        )
        scene.relays._state_changed(RelayPeerGone(NOBODY.text, gone.endpoint_id))
    assert asked[:2] == [True, False]
