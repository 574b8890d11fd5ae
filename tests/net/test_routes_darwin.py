from ipaddress import ip_address, ip_interface, ip_network

import pytest
from tests.support.commands import FakeRun

from tunnel_rs.errors import LocalError
from tunnel_rs.net.host_network import DeviceConfig, ForwardingConfig, RouteConfig
from tunnel_rs.net.routes_darwin import DarwinNetwork, make

V4, V6 = ip_interface("10.7.0.2/24"), ip_interface("fd07::2/64")
GATEWAY = {"route -n get": "   route to: x\n    gateway: 192.168.1.1\n  interface: en0\n"}


async def test_a_client_from_start_to_end() -> None:
    run = FakeRun(GATEWAY)
    network = DarwinNetwork(run=run)
    await network.set_device("utun4", DeviceConfig((V4, V6), 1440, connected=False))
    assert run.lines() == [
        "ifconfig utun4 inet 10.7.0.2 10.7.0.2 netmask 255.255.255.0 alias",
        "ifconfig utun4 inet6 fd07::2 prefixlen 64 alias",
        "ifconfig utun4 mtu 1440 up",
    ]
    await network.exclude(ip_address("203.0.113.9"))
    await network.exclude(ip_address("203.0.113.9"))
    assert run.lines() == [
        "route -n get -inet 203.0.113.9",
        "route -n add -inet -host 203.0.113.9 192.168.1.1",
    ]
    routes = RouteConfig((ip_network("0.0.0.0/0"), ip_network("fd00:9::/48")))
    await network.set_routes("utun4", routes)
    await network.set_routes("utun4", routes)
    assert run.lines() == [
        "route -n add -inet -net 0.0.0.0/1 -interface utun4",
        "route -n add -inet -net 128.0.0.0/1 -interface utun4",
        "route -n add -inet6 -net fd00:9::/48 -interface utun4",
    ]
    await network.undo()
    await network.undo()
    assert run.lines() == [
        "route -n delete -inet6 -net fd00:9::/48 -interface utun4",
        "route -n delete -inet -net 128.0.0.0/1 -interface utun4",
        "route -n delete -inet -net 0.0.0.0/1 -interface utun4",
        "route -n delete -inet -host 203.0.113.9 192.168.1.1",
        "ifconfig utun4 inet6 fd07::2 delete",
        "ifconfig utun4 inet 10.7.0.2 delete",
    ]


@pytest.mark.parametrize(
    "answer",
    [
        "gateway: 10.7.0.1\n  interface: utun4\n",
        "  interface: en0\n",
        "  gateway: link#4\n  interface: en0\n",
    ],
)
async def test_a_look_up_that_leads_into_the_vpn_or_nowhere_is_not_used(answer: str) -> None:
    run = FakeRun({"route -n get": f"  {answer}"})
    network = DarwinNetwork(run=run)
    await network.set_device("utun4", DeviceConfig((V4,), 1440, connected=False))
    await network.exclude(ip_address("203.0.113.9"))
    assert not any("add" in line for line in run.lines())


async def test_resolvers_are_set_and_removed() -> None:
    run = FakeRun()
    network = DarwinNetwork(run=run)
    config = RouteConfig((), resolvers=(ip_address("10.7.0.1"),), domains=("lan.example",))
    await network.set_routes("utun4", config)
    await network.undo()
    (_, on), (_, off) = run.calls
    assert "d.add ServerAddresses * 10.7.0.1\n" in on
    assert "d.add SupplementalMatchDomains * lan.example\n" in on
    assert off == "remove State:/Network/Service/tunnel-rs-vpn/DNS\n"


async def test_a_server_forwards_and_puts_the_setting_back() -> None:
    run = FakeRun({"sysctl -n": "0\n"})
    network = make()
    network = DarwinNetwork(run=run)
    await network.set_forwarding("utun4", ForwardingConfig(True, False, False, True))
    await network.undo()
    assert run.lines() == [
        "sysctl -n net.inet.ip.forwarding",
        "sysctl -w net.inet.ip.forwarding=1",
        "sysctl -w net.inet.ip.forwarding=0",
    ]
    with pytest.raises(LocalError, match="needs Linux"):
        await network.set_forwarding("utun4", ForwardingConfig(True, True, True, True))


async def test_a_kill_switch_is_refused() -> None:
    with pytest.raises(LocalError, match="needs Linux"):
        await DarwinNetwork(run=FakeRun()).set_routes("utun4", RouteConfig((), kill_switch=True))


async def test_resolvers_of_a_killed_client_are_removed() -> None:
    run = FakeRun()
    await DarwinNetwork(run=run).clean(None, client=False)
    assert run.calls == []
    await DarwinNetwork(run=run).clean(None, client=True)
    assert run.calls[0][1].startswith("remove ")
