"""Tests of `tunnel_rs.vpn.client`, with a server played over memory links."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Any

import pytest
from tests.support.ip_packets import burst, udp
from tests.support.memory_link import MemoryLink, MemoryStream, link_pair
from tests.support.recorder import Recorder
from tests.support.sockets import until
from tests.support.vpn import TOKEN, FakeHost, FakeTun

from tunnel_rs.errors import (
    AuthRefusedError,
    LocalError,
    TunnelError,
    UnreachableError,
    WrongPeerError,
)
from tunnel_rs.net.exchange import Exchange
from tunnel_rs.proto.vpn_frames import PING, PONG, packet_frame
from tunnel_rs.proto.vpn_handshake import (
    GSO,
    Lease,
    VpnRequest,
    VpnResponse,
    decode_request,
    encode_response,
)
from tunnel_rs.reports import Notice, Report, TunnelLost, VpnUp
from tunnel_rs.vpn.client import VpnClient
from tunnel_rs.vpn.settings import ClientSettings

LEASE4 = Lease(IPv4Address("10.7.0.2"), IPv4Network("10.7.0.0/24"), IPv4Address("10.7.0.1"))
LEASE6 = Lease(IPv6Address("fd07::2"), IPv6Network("fd07::/64"), IPv6Address("fd07::1"))
WELCOME = VpnResponse(True, LEASE4, LEASE6)


class Bench:
    """One client, and the server's ends of the links it dials. `answers` are given in turn, the
    last one for ever."""

    def __init__(self, *answers: VpnResponse | TunnelError, **settings: Any) -> None:
        self.tun, self.host = FakeTun(), FakeHost()
        self.reports: list[Report] = []
        self.network: object = "at home"
        self.links: list[MemoryLink] = []
        self.requests: list[VpnRequest] = []
        self._answers = list(answers) or [WELCOME]
        self._serving: list[asyncio.Task[None]] = []
        self.client = VpnClient(
            ClientSettings(TOKEN, **settings),
            self.tun,
            self.host,
            self._connect,
            self.reports.append,
            random=lambda: 0.0,
            device_id=77,
            network=self._look,
        )

    def _look(self) -> object:
        if self.network is None:
            raise OSError("the system does not tell")
        return self.network

    async def _connect(self) -> MemoryLink:
        answer = self._answers[0] if len(self._answers) == 1 else self._answers.pop(0)
        if isinstance(answer, TunnelError):
            raise answer
        client, server = link_pair()
        self.links.append(server)
        self._serving.append(asyncio.create_task(self._serve(server, answer)))
        return client

    async def _serve(self, link: MemoryLink, answer: VpnResponse) -> None:
        exchange = Exchange(await link.accept_stream())
        self.requests.append(decode_request(await exchange.receive()))
        exchange.finish_encoded(encode_response(answer), stop=False)

    async def data_stream(self, number: int = 0) -> Recorder:
        """The server's end of the data stream of the link with this number."""
        await until(lambda: len(self.links) > number)
        await self._serving[number]
        stream = await self.links[number].accept_stream()
        assert isinstance(stream, MemoryStream)
        return Recorder(stream)

    def lost(self) -> list[TunnelLost]:
        return [report for report in self.reports if isinstance(report, TunnelLost)]


@asynccontextmanager
async def running(bench: Bench) -> AsyncIterator[Bench]:
    task = asyncio.create_task(bench.client.run())
    try:
        yield bench
    finally:
        await bench.client.close()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Waiting between attempts takes no time; the waits are noted."""
    waits: list[float] = []

    async def wait(client: VpnClient, delay: float) -> None:
        waits.append(delay)
        await asyncio.sleep(0)

    monkeypatch.setattr(VpnClient, "_wait", wait)
    return waits


async def test_the_request_and_what_follows_from_the_answer() -> None:
    routes = (ip_network("192.168.7.0/24"), ip_network("::/0"))
    async with running(Bench(routes=routes, mtu=1400)) as bench:
        recorder = await bench.data_stream()
        await until(lambda: bytes(recorder.data) == PING)
        assert bench.requests == [VpnRequest(77, TOKEN, frozenset({GSO}))]
        [device] = bench.host.devices
        assert [str(address) for address in device.addresses] == ["10.7.0.2/24", "fd07::2/64"]
        assert (device.mtu, device.connected) == (1400, False)
        [config] = bench.host.routes
        assert config.routes == (LEASE4.network, LEASE6.network, *routes)
        assert bench.host.excluded == ["192.0.2.1"]
        assert VpnUp("tun-test", ("10.7.0.2/24", "fd07::2/64"), tuple(map(str, routes))) in (
            bench.reports
        )
    assert bench.tun.closed and bench.host.undone == 1


EVERYTHING = (ip_network("0.0.0.0/0"), ip_network("::/0"))


async def test_routes_of_a_family_that_was_not_assigned_are_left_out_and_told() -> None:
    async with running(Bench(VpnResponse(True, LEASE4), routes=EVERYTHING)) as bench:
        await bench.data_stream()
        [config] = bench.host.routes
        assert config.routes == (LEASE4.network, ip_network("0.0.0.0/0"))
        assert config.blocked == ()
        text = "there is no IPv6 address of the VPN: ::/0 is not in the VPN"
        assert Notice("warning", text) in bench.reports


async def test_a_kill_switch_blocks_from_the_start_and_what_the_vpn_does_not_carry() -> None:
    settings = {"routes": EVERYTHING, "kill_switch": True}
    async with running(Bench(VpnResponse(True, LEASE4), **settings)) as bench:
        await bench.data_stream()
        before, during = bench.host.routes
        assert (before.routes, before.blocked) == ((), EVERYTHING)
        assert during.routes == (LEASE4.network, ip_network("0.0.0.0/0"))
        assert during.blocked == (ip_network("::/0"),) and during.kill_switch
        assert bench.host.cleaned == 1


@pytest.mark.parametrize("small_mtu", [True, False])
async def test_ipv6_is_left_out_where_it_cannot_be(small_mtu: bool) -> None:
    bench = Bench(mtu=1200 if small_mtu else 1440)
    bench.host.has_ipv6 = small_mtu
    async with running(bench):
        await bench.data_stream()
        [device] = bench.host.devices
        assert [str(address) for address in device.addresses] == ["10.7.0.2/24"]
        [notice] = [report for report in bench.reports if isinstance(report, Notice)]
        assert "IPv6 of the VPN is not used" in notice.text


async def test_without_ipv6_a_vpn_of_ipv6_alone_cannot_be_joined() -> None:
    bench = Bench(VpnResponse(True, lease6=LEASE6))
    bench.host.has_ipv6 = False
    with pytest.raises(LocalError, match="no IPv6 on this machine"):
        await bench.client.run()


@pytest.mark.parametrize(
    ("settings", "resolvers", "domains"),
    [
        ({}, ("10.7.0.1",), ("lan.example",)),
        ({"accept_dns": False}, (), ()),
        ({"resolvers": (IPv4Address("10.0.0.9"),)}, ("10.0.0.9",), ()),
    ],
)
async def test_resolvers_are_the_servers_ours_or_none(
    settings: dict[str, Any], resolvers: tuple[str, ...], domains: tuple[str, ...]
) -> None:
    answer = VpnResponse(
        True, LEASE4, resolvers=(IPv4Address("10.7.0.1"),), domains=("lan.example",)
    )
    async with running(Bench(answer, **settings)) as bench:
        await bench.data_stream()
        [config] = bench.host.routes
        assert tuple(map(str, config.resolvers)) == resolvers
        assert config.domains == domains


async def test_packets_flow_both_ways_and_are_counted() -> None:
    async with running(Bench()) as bench:
        recorder = await bench.data_stream()
        await until(lambda: bench.tun.reading)
        out, back = udp("10.7.0.2", "10.7.0.1", (1, 2)), udp("10.7.0.1", "10.7.0.2", (2, 1))
        bench.tun.bring(out, out)
        await until(lambda: bytes(recorder.data) == PING + packet_frame(out) * 2)
        recorder.stream.write(PONG + packet_frame(back))
        await until(lambda: bench.tun.packets == [back])
        traffic = bench.client.traffic
        assert (traffic.sent_packets, traffic.received_packets) == (2, 1)
        bench.tun.takes = False
        recorder.stream.write(packet_frame(back))
        await until(lambda: traffic.dropped == {"refused by the system": 1})


async def test_answers_of_the_system_leave_at_once_and_segments_arrive_joined() -> None:
    async with running(Bench()) as bench:
        recorder = await bench.data_stream()
        await until(lambda: bench.tun.reading)
        answer = udp("10.7.0.2", "10.7.0.1", (1, 2))
        bench.tun.answers = [answer]
        segments = burst(("10.7.0.1", "10.7.0.2"), [bytes(1000)] * 2)
        recorder.stream.write(PONG + b"".join(map(packet_frame, segments)))
        await until(lambda: bytes(recorder.data) == PING + packet_frame(answer))
        assert [len(packet) for packet in bench.tun.packets] == [2052]


async def test_a_server_that_does_not_read_stops_the_reading_of_the_device() -> None:
    async with running(Bench()) as bench:
        recorder = await bench.data_stream()
        recorder.consume = False
        await until(lambda: bench.tun.reading)
        packet = udp("10.7.0.2", "10.7.0.1", (1, 2), bytes(1400))
        brought = 0
        while bench.tun.reading:
            bench.tun.bring(*[packet] * 16)
            brought += 16
            await asyncio.sleep(0)
            assert brought < 10_000
        recorder.stream.consumed(recorder.stream.unconsumed)
        recorder.consume = True
        await until(lambda: bench.tun.reading)


async def test_a_lost_link_is_replaced_and_the_device_stays(quick: list[float]) -> None:
    async with running(Bench()) as bench:
        await bench.data_stream()
        bench.links[0].lose()
        recorder = await bench.data_stream(1)
        await until(lambda: bytes(recorder.data) == PING)
        assert not bench.tun.closed
        assert bench.host.undone == 0
        assert len(bench.requests) == 2 and bench.requests[0] == bench.requests[1]
        assert [report.retry_in for report in bench.lost()] == [1.0]
    assert quick == [1.0]


async def test_attempts_are_spaced_wider_and_wider_until_the_limit(quick: list[float]) -> None:
    bench = Bench(UnreachableError("no answer"), max_attempts=4)
    with pytest.raises(UnreachableError, match=r"gave up after 4 attempt\(s\): no answer"):
        await bench.client.run()
    assert quick == [1.0, 2.0, 4.0]
    assert bench.tun.closed and bench.host.undone == 1


async def test_news_of_a_relay_end_the_waiting() -> None:
    async with running(Bench(UnreachableError("no answer"), WELCOME)) as bench:
        bench.client.retry_now()  # nothing waits yet
        await until(lambda: len(bench.lost()) == 1)
        bench.client.retry_now()
        async with asyncio.timeout(0.9):
            await bench.data_stream()


@pytest.mark.parametrize("network", ["elsewhere", None])
async def test_another_network_ends_the_waiting(
    monkeypatch: pytest.MonkeyPatch, network: object
) -> None:
    monkeypatch.setattr("tunnel_rs.vpn.client.LOOK_EVERY", 0.01)
    async with running(Bench(UnreachableError("no answer"), WELCOME)) as bench:
        await until(lambda: len(bench.lost()) == 1)
        bench.network = network
        async with asyncio.timeout(0.9):
            await bench.data_stream()


async def test_a_tunnel_that_was_up_does_not_count_as_a_failure(quick: list[float]) -> None:
    bench = Bench(WELCOME, UnreachableError("x"), WELCOME, max_attempts=2)
    async with running(bench):
        await bench.data_stream()
        bench.links[0].lose()
        await bench.data_stream(1)


async def test_without_reconnecting_the_first_loss_is_the_end() -> None:
    bench = Bench(reconnect=False)
    task = asyncio.create_task(bench.client.run())
    await bench.data_stream()
    bench.links[0].lose("gone")
    with pytest.raises(TunnelError, match="gone"):
        await task
    assert bench.tun.closed and bench.host.undone == 1


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (VpnResponse(False, reason="Invalid authentication token"), AuthRefusedError),
        (WrongPeerError("another key"), WrongPeerError),
    ],
)
async def test_what_will_not_get_better_is_not_tried_again(
    answer: VpnResponse | TunnelError, kind: type[Exception]
) -> None:
    with pytest.raises(kind):
        await Bench(answer).client.run()


async def test_a_full_server_is_tried_again(quick: list[float]) -> None:
    full = VpnResponse(False, reason="Server full", retry=True)
    async with running(Bench(full, WELCOME)) as bench:
        await bench.data_stream(1)
        assert "Server full" in bench.lost()[0].reason


async def test_a_close_with_auth_failed_is_for_good() -> None:
    bench = Bench()
    task = asyncio.create_task(bench.client.run())
    await bench.data_stream()
    bench.links[0].close(1, "auth_failed")
    with pytest.raises(AuthRefusedError, match="no longer accepts our token"):
        await task


async def test_a_server_that_breaks_the_protocol_is_left_and_tried_again(
    quick: list[float],
) -> None:
    async with running(Bench()) as bench:
        recorder = await bench.data_stream()
        recorder.stream.write(b"\x09")
        await bench.data_stream(1)
        assert "broke the protocol" in bench.lost()[0].reason


async def test_when_the_machine_refuses_the_addresses_it_is_over() -> None:
    bench = Bench()
    bench.host.refuses = "no permission"
    with pytest.raises(LocalError, match="no permission"):
        await bench.client.run()
    assert bench.links[0].other.error is not None


async def test_when_the_device_goes_it_is_over() -> None:
    bench = Bench()
    task = asyncio.create_task(bench.client.run())
    await bench.data_stream()
    await until(lambda: bench.tun.reading)
    bench.tun.vanish()
    with pytest.raises(LocalError, match="tun-test has gone"):
        await task


async def test_other_addresses_after_a_reconnect_replace_the_old_ones(quick: list[float]) -> None:
    other = Lease(IPv4Address("10.7.0.9"), LEASE4.network, LEASE4.server)
    async with running(Bench(WELCOME, VpnResponse(True, other))) as bench:
        await bench.data_stream()
        bench.links[0].lose()
        await bench.data_stream(1)
        assert [str(address) for address in bench.host.devices[-1].addresses] == ["10.7.0.9/24"]
