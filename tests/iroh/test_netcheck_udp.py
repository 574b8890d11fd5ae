from collections.abc import Iterator

import pytest
from tests.net.test_qad import PEM, server
from tests.support.stun_server import stun_server

from tunnel_rs.errors import TargetError
from tunnel_rs.iroh import netcheck_udp as module
from tunnel_rs.iroh.netcheck_findings import Mapping
from tunnel_rs.iroh.netcheck_udp import (
    QUIC,
    STUN,
    Target,
    UdpServer,
    check_family,
    check_nat,
    find_targets,
    source_address,
)
from tunnel_rs.net.interfaces import local_interfaces
from tunnel_rs.proto.qad import Trust
from tunnel_rs.values import HostPort, SocketAddr

TRUST = Trust(pem=PEM)


@pytest.fixture(autouse=True)
def at_home(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The address that stands for the internet is loopback: tests have no way out."""
    monkeypatch.setattr(module, "_ANYWHERE", {4: "127.0.0.1", 6: "::1"})
    yield


def target(by: str, address: SocketAddr) -> Target:
    return Target(UdpServer(HostPort("localhost", address.port), by), address)


async def resolve(host: str) -> list[str]:
    if host == "lost.example":
        raise TargetError("lost.example: cannot be resolved")
    return {"both.example": ["2001:db8::1", "2001:db8::2", "192.0.2.1"]}.get(host, ["192.0.2.9"])


async def test_each_server_is_asked_at_one_address_of_each_family() -> None:
    both = UdpServer(HostPort("both.example", 5), QUIC)
    one = UdpServer(HostPort("one.example", 6), STUN)
    targets, problems = await find_targets([both, one], resolve)
    assert targets == [
        Target(both, SocketAddr("192.0.2.1", 5)),
        Target(both, SocketAddr("2001:db8::1", 5)),
        Target(one, SocketAddr("192.0.2.9", 6)),
    ]
    assert problems == ()


async def test_a_stun_server_without_address_is_told_once() -> None:
    lost = [UdpServer(HostPort("lost.example", 5), by) for by in (STUN, STUN, QUIC)]
    assert await find_targets(lost, resolve) == ([], ("lost.example: cannot be resolved",))


def test_the_name_in_a_certificate_has_no_dot_at_its_end() -> None:
    assert UdpServer(HostPort("use1-1.relay.example.", 5), QUIC).tls_name == "use1-1.relay.example"


async def test_all_servers_are_asked_from_one_socket() -> None:
    async with server() as quic, stun_server() as (_, stun):
        found = await check_family(
            4, [target(QUIC, quic.bound), target(STUN, stun)], local_interfaces(), TRUST
        )
    assert found.name == "IPv4" and found.route and found.bound is not None
    assert found.seen == (SocketAddr("127.0.0.1", found.bound.port),)
    assert found.depends_on_destination is False and found.behind_nat is False


async def test_a_certificate_that_is_not_trusted_is_an_answer_all_the_same() -> None:
    async with server() as quic:
        found = await check_family(4, [target(QUIC, quic.bound)], (), Trust())
    [mapping] = found.mappings
    assert mapping.address is None and mapping.problem == "self-signed certificate"
    assert found.answered is True


async def test_silence_is_told_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_TIMEOUT", 0.05)
    async with stun_server(lambda *_: None) as (_, silent):
        targets = [target(QUIC, silent), target(STUN, silent)]
        found = await check_family(4, targets, (), TRUST)
    assert found.answered is False
    assert [mapping.problem for mapping in found.mappings] == ["no answer", "no answer"]


async def test_an_answer_without_sense_is_told() -> None:
    async with stun_server(lambda data, _: b"\1\1\0\0" + data[4:20]) as (_, strange):
        found = await check_family(4, [target(STUN, strange)], (), TRUST)
    [mapping] = found.mappings
    assert mapping == Mapping(
        f"localhost:{strange.port}",
        STUN,
        strange,
        None,
        True,
        "the STUN server's answer has no address",
    )


async def test_servers_of_the_other_family_are_not_asked() -> None:
    async with stun_server() as (server, stun):
        found = await check_family(6, [target(STUN, stun)], local_interfaces(), TRUST)
        assert found.mappings == () and found.answered is None
        assert server.requests == 0


async def test_without_a_way_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "source_address", lambda _: None)
    async with stun_server() as (server, stun):
        found = await check_family(4, [target(STUN, stun)], (), TRUST)
        assert not found.route and found.mappings == () and server.requests == 0
        assert (await check_nat(target(STUN, stun))).problem == "no way to it"


def test_our_address_on_the_way_is_found_without_sending() -> None:
    assert source_address(SocketAddr("127.0.0.1", 9)) == "127.0.0.1"


async def test_the_kind_of_nat_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunnel_rs.net.nat_type.STEP_TIMEOUT", 0.01)
    async with stun_server(lambda *_: None) as (_, silent):
        nat = await check_nat(target(STUN, silent))
        assert (nat.kind, nat.problem) == ("no answer", "")
    async with stun_server(lambda *_: b"junk") as (_, strange):
        nat = await check_nat(target(STUN, strange))
        assert nat.kind == "" and nat.problem == "an answer that makes no sense"
