from ipaddress import ip_address, ip_interface, ip_network

import pytest
from tests.support.commands import FakeRun

from tunnel_rs.errors import LocalError
from tunnel_rs.net.host_network import DeviceConfig, ForwardingConfig, RouteConfig
from tunnel_rs.net.routes_windows import WindowsNetwork, make

V4, V6 = ip_interface("10.7.0.2/24"), ip_interface("fd07::2/64")
FOUND = {
    "powershell": '{"InterfaceIndex":12,"InterfaceAlias":"Ethernet","NextHop":"192.168.1.1"}\r\n'
}


async def test_a_client_from_start_to_end() -> None:
    run = FakeRun(FOUND)
    network = WindowsNetwork(run=run)
    await network.set_device("vpn", DeviceConfig((V4, V6), 1440, connected=False))
    assert run.lines() == [
        "netsh interface ipv4 add address name=vpn address=10.7.0.2 mask=255.255.255.0 "
        "store=active",
        "netsh interface ipv4 set subinterface vpn mtu=1440 store=active",
        "netsh interface ipv6 add address interface=vpn address=fd07::2/64 store=active",
        "netsh interface ipv6 set subinterface vpn mtu=1440 store=active",
    ]
    await network.exclude(ip_address("203.0.113.9"))
    route = "prefix=203.0.113.9/32 interface=12 nexthop=192.168.1.1 store=active"
    assert run.lines()[1:] == [f"netsh interface ipv4 add route {route}"]
    config = RouteConfig((ip_network("::/0"),), resolvers=(ip_address("10.7.0.1"),))
    await network.set_routes("vpn", config)
    assert run.lines() == [
        "netsh interface ipv6 add route prefix=::/1 interface=vpn metric=1 store=active",
        "netsh interface ipv6 add route prefix=8000::/1 interface=vpn metric=1 store=active",
        "netsh interface ipv4 add dnsservers name=vpn address=10.7.0.1 index=1 validate=no",
    ]
    await network.undo()
    undone = run.lines()
    assert undone[-1] == (
        "netsh interface ipv4 delete address name=vpn address=10.7.0.2 store=active"
    )
    assert f"netsh interface ipv4 delete route {route}" in undone
    assert len(undone) == 6


@pytest.mark.parametrize(
    "answer",
    [
        '{"InterfaceIndex":40,"InterfaceAlias":"vpn","NextHop":"10.7.0.1"}',
        '{"InterfaceIndex":12,"InterfaceAlias":"Ethernet","NextHop":"0.0.0.0"}',
        "not JSON",
        "[]",
        '{"InterfaceIndex":12}',
        "",
    ],
)
async def test_a_look_up_that_leads_into_the_vpn_or_nowhere_is_not_used(answer: str) -> None:
    run = FakeRun({"powershell": answer})
    network = WindowsNetwork(run=run)
    await network.set_device("vpn", DeviceConfig((V4,), 1440, connected=False))
    await network.exclude(ip_address("203.0.113.9"))
    assert not any("add route" in line for line in run.lines())


async def test_resolvers_for_some_names_alone_are_left_out() -> None:
    run = FakeRun()
    pushed = RouteConfig((), resolvers=(ip_address("10.7.0.1"),), domains=("lan.example",))
    await WindowsNetwork(run=run).set_routes("vpn", pushed)
    assert run.calls == []


async def test_what_windows_cannot_do_is_refused() -> None:
    network = make()
    with pytest.raises(LocalError, match="need Linux"):
        await network.set_forwarding("vpn", ForwardingConfig(True, True, True, True))
    with pytest.raises(LocalError, match="needs Linux"):
        await network.set_routes("vpn", RouteConfig((), kill_switch=True))
    await network.clean(None, client=True)
