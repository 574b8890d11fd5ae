"""Tests of `tunnel_rs.vpn.server`, with clients played over memory links."""

import asyncio
from dataclasses import replace
from ipaddress import ip_address

import pytest
from tests.support.ip_packets import burst, packed, udp
from tests.support.memory_link import MemoryStream
from tests.support.recorder import Recorder
from tests.support.sockets import until
from tests.support.vpn import OTHER_TOKEN, TOKEN, Guest, ServerBench, server_settings

from tunnel_rs.errors import LinkClosedError, LocalError
from tunnel_rs.net.host_network import ForwardingConfig
from tunnel_rs.proto.access import AccessList, Entry, of_tokens
from tunnel_rs.proto.grants import Grant
from tunnel_rs.proto.vpn_frames import PING, FrameDecoder, packet_frame
from tunnel_rs.proto.vpn_handshake import GSO, VpnRequest, VpnResponse
from tunnel_rs.proto.vpn_nat64 import Nat64Settings
from tunnel_rs.reports import ClientGone, ClientRefused, VpnClientJoined
from tunnel_rs.values import Secret
from tunnel_rs.vpn import server as module


async def joined(
    bench: ServerBench, device: int = 1, token: Secret[str] = TOKEN, *, capable: bool = False
) -> tuple[Guest, VpnResponse, Recorder]:
    """A client that has pinged on its data stream."""
    guest = bench.connect()
    capabilities = frozenset({GSO}) if capable else frozenset[str]()
    response = await guest.ask(VpnRequest(device, token, capabilities))
    stream = await guest.link.open_stream()
    assert isinstance(stream, MemoryStream)
    recorder = Recorder(stream)
    stream.write(PING)
    await until(lambda: bytes(recorder.data) == b"\x02")
    return guest, response, recorder


async def closed(guest: Guest) -> LinkClosedError:
    error = await guest.link.wait_closed()
    assert isinstance(error, LinkClosedError)
    return error


async def test_a_client_gets_addresses_of_both_families_and_a_pong() -> None:
    async with ServerBench() as bench:
        _, response, _ = await joined(bench)
        assert response.lease4 is not None and response.lease6 is not None
        assert str(response.lease4.address) == "10.7.0.2"
        assert str(response.lease6.address) == "fd07::2"
        assert str(response.lease4.server) == "10.7.0.1"
        assert [type(report) for report in bench.reports] == [VpnClientJoined]


async def test_the_device_has_the_servers_addresses() -> None:
    async with ServerBench(mtu=1400) as bench:
        [config] = bench.host.devices
        assert [str(address) for address in config.addresses] == ["10.7.0.1/24", "fd07::1/64"]
        assert (config.mtu, config.connected) == (1400, True)
        assert bench.host.forwarding == []


async def test_the_address_of_nat64_is_routed_into_the_device_when_it_is_no_client_s() -> None:
    for source, routes in (("10.7.0.254", []), ("10.64.0.1", ["10.64.0.1/32"])):
        async with ServerBench(nat64=Nat64Settings(ip_address(source).packed)) as bench:
            [config] = bench.host.devices
            assert [str(route) for route in config.routes] == routes


async def test_forwarding_is_set_up_when_asked_for() -> None:
    async with ServerBench(network6=None, masquerade=True) as bench:
        assert bench.host.forwarding == [ForwardingConfig(True, False, True, True)]


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        (None, "Authentication token required"),
        (Secret("iZ9-_.Z9-_.Z9-_.ZU"), "Invalid authentication token"),
    ],
)
async def test_without_a_right_token_nobody_comes_in(
    token: Secret[str] | None, reason: str
) -> None:
    async with ServerBench() as bench:
        guest = bench.connect()
        assert await guest.ask(VpnRequest(1, token)) == VpnResponse(False, reason=reason)
        error = await closed(guest)
        assert (error.code, error.reason) == (1, "auth_failed")
        assert [type(report) for report in bench.reports] == [ClientRefused]
        assert bench.server.sessions == ()


async def test_junk_instead_of_a_request_is_refused() -> None:
    async with ServerBench() as bench:
        guest = bench.connect()
        stream = await guest.link.open_stream()
        stream.write(b"\xff\xff\xff\xff")
        assert (await closed(guest)).code == 1


async def test_a_full_server_says_so_and_that_it_may_pass() -> None:
    async with ServerBench(max_clients=1) as bench:
        await joined(bench)
        guest = bench.connect()
        response = await guest.ask(VpnRequest(2, TOKEN))
        assert response == VpnResponse(False, reason="Server full", retry=True)
        assert (await closed(guest)).code == module.SERVER_FULL


async def test_an_exhausted_pool_is_told_too() -> None:
    from ipaddress import IPv4Network

    async with ServerBench(network4=IPv4Network("10.7.0.0/30"), network6=None) as bench:
        await joined(bench)
        response = await bench.connect().ask(VpnRequest(2, TOKEN))
        assert response == VpnResponse(False, reason="No address is free", retry=True)


async def test_one_family_alone_when_the_other_is_exhausted() -> None:
    from ipaddress import IPv4Network

    async with ServerBench(network4=IPv4Network("10.7.0.0/30")) as bench:
        await joined(bench)
        _, response, _ = await joined(bench, 2)
        assert response.lease4 is None and response.lease6 is not None


async def test_the_address_of_a_client_that_left_is_free_again() -> None:
    async with ServerBench() as bench:
        guest, _, _ = await joined(bench)
        guest.link.close(0, "done")
        await guest.serving
        _, response, _ = await joined(bench, 2)
        assert response.lease4 is not None and str(response.lease4.address) == "10.7.0.2"
        assert any(isinstance(report, ClientGone) for report in bench.reports)


async def test_the_same_device_replaces_its_own_session_and_keeps_its_address() -> None:
    async with ServerBench() as bench:
        first, before, _ = await joined(bench)
        second, after, recorder = await joined(bench)
        assert before == after
        assert (await closed(first)).code == module.REPLACED
        await first.serving
        assert len(bench.server.sessions) == 1
        bench.tun.bring(udp("10.7.0.1", "10.7.0.2", (1, 2), b"to the new one"))
        await until(lambda: len(recorder.data) > 1)
        assert second.link.error is None


async def test_packets_flow_both_ways() -> None:
    async with ServerBench() as bench:
        _, _, recorder = await joined(bench)
        out, back = (
            udp("10.7.0.2", "10.7.0.1", (1, 2), b"out"),
            udp("10.7.0.1", "10.7.0.2", (2, 1), b"back"),
        )
        recorder.stream.write(packet_frame(out))
        await until(lambda: bench.tun.packets == [out])
        recorder.data.clear()
        bench.tun.bring(back)
        await until(lambda: bytes(recorder.data) == packet_frame(back))


async def test_segments_for_the_server_itself_reach_the_system_joined() -> None:
    for can_offload, sizes in ((True, [2052]), (False, [1052, 1052])):
        async with ServerBench(can_offload=can_offload) as bench:
            _, _, recorder = await joined(bench)
            segments = burst(("10.7.0.2", "10.7.0.1"), [bytes(1000)] * 2)
            recorder.stream.write(b"".join(map(packet_frame, segments)))
            await until(lambda: bool(bench.tun.written))
            assert [len(packet) for packet in bench.tun.packets] == sizes


async def test_super_packets_only_for_who_can_take_them() -> None:
    async with ServerBench() as bench:
        _, response, _ = await joined(bench, capable=True)
        assert GSO in response.capabilities and bench.tun.offload
        _, response, _ = await joined(bench, 2)
        assert GSO not in response.capabilities and not bench.tun.offload
    async with ServerBench(offload=False) as bench:
        _, response, _ = await joined(bench, capable=True)
        assert GSO not in response.capabilities


async def test_broken_framing_ends_the_connection() -> None:
    async with ServerBench() as bench:
        guest, _, recorder = await joined(bench)
        recorder.stream.write(b"\x07")
        await closed(guest)
        await guest.serving
        assert bench.server.sessions == ()


async def test_who_opens_no_data_stream_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DATA_STREAM_TIMEOUT", 0.01)
    async with ServerBench() as bench:
        guest = bench.connect()
        await guest.ask(VpnRequest(1, TOKEN))
        await guest.serving
        assert bench.server.sessions == ()
        assert isinstance(bench.reports[-1], ClientGone)
        assert "no data stream" in bench.reports[-1].reason


async def test_tokens_can_be_replaced_while_it_runs() -> None:
    async with ServerBench() as bench:
        bench.server.apply(replace(server_settings(), access=of_tokens(OTHER_TOKEN)))
        assert not (await bench.connect().ask(VpnRequest(1, TOKEN))).accepted
        assert (await bench.connect().ask(VpnRequest(1, OTHER_TOKEN))).accepted


async def test_who_loses_the_token_is_sent_away_and_others_stay() -> None:
    async with ServerBench() as bench:
        gone, _, _ = await joined(bench, 1, TOKEN)
        kept, _, _ = await joined(bench, 2, OTHER_TOKEN)
        bench.server.apply(replace(server_settings(), access=of_tokens(OTHER_TOKEN)))
        error = await gone.link.wait_closed()
        assert isinstance(error, LinkClosedError)
        assert (error.code, error.reason) == (1, "auth_failed")
        assert kept.link.error is None and len(bench.server.sessions) == 1


async def test_a_token_that_has_expired_is_answered_like_a_wrong_one() -> None:
    access = AccessList((Entry(TOKEN, Grant(name="alice", expires=1.0)),))
    async with ServerBench(access=access) as bench:
        response = await bench.connect().ask(VpnRequest(1, TOKEN))
        assert (response.accepted, response.reason) == (False, "Invalid authentication token")
        await until(lambda: bool(bench.reports))
        assert bench.reports[-1].reason == "the token of alice has expired"  # type: ignore[attr-defined]


async def test_the_holder_of_a_token_gets_its_address_every_time() -> None:
    seen = set()
    for first, second in ((TOKEN, OTHER_TOKEN), (OTHER_TOKEN, TOKEN)):
        async with ServerBench(stable_addresses=True) as bench:
            answers = {}
            for number, token in enumerate((first, second)):
                _, response, _ = await joined(bench, number, token)
                assert response.lease4 is not None
                answers[token] = str(response.lease4.address)
            seen.add((answers[TOKEN], answers[OTHER_TOKEN]))
    assert len(seen) == 1


async def test_when_the_device_goes_the_server_cannot_go_on() -> None:
    async with ServerBench() as bench:
        running = asyncio.create_task(bench.server.run_until_lost())
        bench.tun.vanish()
        with pytest.raises(LocalError, match="tun-test has gone"):
            await running


async def test_a_closing_server_ends_its_links_in_order() -> None:
    bench = ServerBench()
    async with bench:
        guest, _, _ = await joined(bench)
    assert (await closed(guest)).reason == "done"
    late = bench.connect()
    await late.serving
    assert (await closed(late)).reason == "done"


async def test_what_is_pushed_reaches_the_client() -> None:
    async with ServerBench(domains=("lan.example",)) as bench:
        _, response, _ = await joined(bench)
        assert response.domains == ("lan.example",)


def test_the_stand_in_addresses_are_what_they_seem() -> None:
    assert FrameDecoder().feed(packet_frame(packed("10.7.0.2"))).packets
