"""Tests of `tunnel_rs.net.routes_linux` without a kernel; `netns.test_vpn_netns` has one."""

import sys
from ipaddress import ip_interface
from pathlib import Path

import pytest
from tests.support.commands import FakeRun

from tunnel_rs.errors import LocalError
from tunnel_rs.net import routes_linux
from tunnel_rs.net.host_network import DeviceConfig, ForwardingConfig
from tunnel_rs.net.routes_linux import LinuxNetwork, Sysctls, make, netlink
from tunnel_rs.proto.vpn_routes import MARK


def sysctls(root: Path, **values: str) -> Sysctls:
    for name, value in values.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")
    return Sysctls(root)


FORWARDING = ForwardingConfig(ipv4=True, ipv6=True, masquerade=True, isolate=False)


def test_settings_are_put_back_as_they_were(tmp_path: Path) -> None:
    settings = sysctls(tmp_path, a="0", b="1")
    for value in ("1", "2"):
        settings.set("a", value)
    settings.set("b", "1")
    assert settings.get("a") == "2"
    settings.restore()
    assert (settings.get("a"), settings.get("b")) == ("0", "1")
    assert settings.get("absent") == ""


def test_a_setting_that_cannot_be_made_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="set it yourself, or run it as root"):
        Sysctls(tmp_path).set("absent/name", "1")


@pytest.mark.parametrize(("one", "strict"), [("0", False), ("2", False), ("1", True)])
def test_a_strict_reverse_path_filter_is_noticed(tmp_path: Path, one: str, strict: bool) -> None:
    settings = sysctls(
        tmp_path, net__ipv4__conf__all__rp_filter="0", net__ipv4__conf__eth0__rp_filter=one
    )
    assert settings.has_strict_reverse_path() is strict


async def test_forwarding_is_set_up_and_undone(tmp_path: Path) -> None:
    settings = sysctls(tmp_path, net__ipv4__ip_forward="0", net__ipv6__conf__all__forwarding="0")
    run = FakeRun()
    network = LinuxNetwork(run=run, sysctls=settings)
    await network.set_forwarding("vpn0", FORWARDING)
    assert (
        settings.get("net/ipv4/ip_forward") == settings.get("net/ipv6/conf/all/forwarding") == "1"
    )
    [(command, text)] = run.calls
    assert command == ("nft", "-f", "-")
    assert "masquerade" in text
    run.calls.clear()
    await network.undo()
    await network.undo()
    assert settings.get("net/ipv4/ip_forward") == "0"
    [text] = [text for command, text in run.calls if command[1] == "-f"]
    assert text.endswith("delete table inet tunnel_rs_vpn_of_vpn0\n")


async def test_when_nft_is_missing_it_is_told_and_the_settings_go_back(tmp_path: Path) -> None:
    settings = sysctls(tmp_path, net__ipv4__ip_forward="0", net__ipv6__conf__all__forwarding="0")
    network = LinuxNetwork(run=FakeRun(failing=["nft"]), sysctls=settings)
    with pytest.raises(LocalError, match="nft"):
        await network.set_forwarding("vpn0", FORWARDING)
    await network.undo()
    assert settings.get("net/ipv4/ip_forward") == "0"


async def test_a_default_route_that_a_router_announces_outlives_forwarding(tmp_path: Path) -> None:
    settings = sysctls(
        tmp_path,
        net__ipv4__ip_forward="1",
        net__ipv6__conf__all__forwarding="0",
        net__ipv6__conf__all__accept_ra="1",
        net__ipv6__conf__eth0__accept_ra="1",
        net__ipv6__conf__eth1__accept_ra="0",
    )
    network = LinuxNetwork(run=FakeRun(), sysctls=settings)
    await network.set_forwarding("vpn0", FORWARDING)
    names = [f"net/ipv6/conf/{name}/accept_ra" for name in ("all", "eth0", "eth1")]
    assert [settings.get(name) for name in names] == ["1", "2", "0"]
    await network.undo()
    assert [settings.get(name) for name in names] == ["1", "1", "0"]


async def test_where_the_kernel_forwards_already_nothing_is_set(tmp_path: Path) -> None:
    settings = sysctls(
        tmp_path,
        net__ipv4__ip_forward="1",
        net__ipv6__conf__all__forwarding="1",
        net__ipv6__conf__eth0__accept_ra="1",
    )
    for path in tmp_path.rglob("*"):
        if path.is_file():
            path.chmod(0o400)
    await LinuxNetwork(run=FakeRun(), sysctls=settings).set_forwarding("vpn0", FORWARDING)
    assert settings.get("net/ipv6/conf/eth0/accept_ra") == "1"


async def test_forwarding_stays_on_for_another_server(tmp_path: Path) -> None:
    settings = sysctls(tmp_path, net__ipv4__ip_forward="0", net__ipv6__conf__all__forwarding="0")
    run = FakeRun({"nft list": "table inet tunnel_rs_vpn_of_lo\n"})
    network = LinuxNetwork(run=run, sysctls=settings)
    await network.set_forwarding("vpn0", FORWARDING)
    await network.undo()
    assert settings.get("net/ipv4/ip_forward") == "1"


async def test_without_ipv6_an_ipv6_address_is_refused_in_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(LinuxNetwork, "has_ipv6", False)
    config = DeviceConfig((ip_interface("fd00::1/64"),), 1440)
    with pytest.raises(LocalError, match="no IPv6"):
        await LinuxNetwork(run=FakeRun()).set_device("vpn0", config)


TABLES = "table inet filter\ntable inet tunnel_rs_vpn_client\ntable inet tunnel_rs_vpn_of_gone7\n" \
    "table inet tunnel_rs_vpn_of_lo\n"  # fmt: skip


async def test_tables_of_killed_servers_are_removed_and_others_are_not() -> None:
    run = FakeRun({"nft list": TABLES})
    await LinuxNetwork(run=run).clean(None, client=False)
    removed = [text for command, text in run.calls if command[1] == "-f"]
    assert len(removed) == 1 and "tunnel_rs_vpn_of_gone7" in removed[0]


async def test_the_table_of_an_earlier_device_of_our_name_is_removed() -> None:
    run = FakeRun({"nft list": TABLES})
    await LinuxNetwork(run=run).clean("lo", client=False)
    removed = [text for command, text in run.calls if command[1] == "-f"]
    assert [name for text in removed for name in ("gone7", "of_lo") if name in text] == [
        "gone7",
        "of_lo",
    ]


async def test_without_nft_there_are_no_tables_to_remove() -> None:
    await LinuxNetwork(run=FakeRun(failing=["nft"])).clean(None, client=False)


async def test_without_pyroute2_it_is_said_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pyroute2", None)
    with pytest.raises(LocalError, match=r"pip install tunnel-rs\[vpn\]"):
        await netlink(lambda ip: None)


async def test_what_the_kernel_refuses_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyroute2")
    from pyroute2.netlink.exceptions import NetlinkError

    for number, text in ((1, "no permission"), (17, r"kernel refused .*EEXIST")):

        def refuse(ip: object, number: int = number) -> None:
            raise NetlinkError(number, "it is so")

        with pytest.raises(LocalError, match=text):
            await netlink(refuse)


def test_our_own_packets_are_told_by_a_mark() -> None:
    assert make().mark == MARK == routes_linux.MARK
