"""The VPN between network namespaces, with real TUN devices and the real programs."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.vpn_lab import (
    FAR,
    FAR_SIDE,
    SERVER_ADDRESS,
    TIMEOUT,
    Lab,
    eventually,
    needs_lab,
    new_token,
    vpn_lab,
)

pytestmark = [pytest.mark.netns, needs_lab, pytest.mark.timeout(240)]

OUTAGE = float(os.environ.get("VPN_OUTAGE", "0"))
"""Seconds, as long as it takes to notice at least; `make vpnlab` has a minute."""

V4, V6 = ("--network", "10.7.0.0/24"), ("--network6", "fd07::/64")


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with vpn_lab(tmp_path) as made:
        yield made


def config(lab: Lab, tmp_path: Path, text: str) -> str:
    path = tmp_path / "server.toml"
    path.write_text(f'role = "vpnserver"\nmode = "iroh"\n[iroh]\n{text}')
    return str(path)


def rules(lab: Lab, namespace: str) -> list[str]:
    lines = (
        lab.in_(namespace, "ip", "rule").splitlines()
        + lab.in_(namespace, "ip", "-6", "rule").splitlines()
    )
    return [line for line in lines if line.startswith("52")]


@pytest.mark.parametrize(
    ("families", "addresses"),
    [(V4, ["10.7.0.1"]), (V6, ["fd07::1"]), ((*V4, *V6), ["10.7.0.1", "fd07::1"])],
    ids=["IPv4", "IPv6", "both"],
)
def test_a_client_reaches_the_server_and_leaves_nothing_behind(
    lab: Lab, families: tuple[str, ...], addresses: list[str]
) -> None:
    server, namespace = lab.start_server(*families), lab.client()
    client = lab.start_client(namespace)
    assert all(lab.pings(namespace, address) for address in addresses)
    assert client.stop() == 143
    assert server.stop(signal.SIGINT) == 130
    assert rules(lab, namespace) == []
    assert "tunnel" not in lab.in_(namespace, "ip", "link")
    assert "tunnel" not in lab.in_(lab.server, "ip", "link")
    assert "Traceback" not in client.text + server.text


def test_a_network_behind_the_server(lab: Lab) -> None:
    server, namespace = lab.start_server(*V4, "--masquerade"), lab.client()
    client = lab.start_client(namespace, "--route", "198.51.100.0/24")
    assert lab.seen_from(namespace) == FAR_SIDE
    client.stop()
    server.stop()
    assert "tunnel_rs" not in lab.in_(lab.server, "nft", "list", "tables")
    assert lab.in_(lab.server, "cat", "/proc/sys/net/ipv4/ip_forward").strip() == "0"


def test_without_a_route_packets_do_not_enter_the_vpn(lab: Lab) -> None:
    lab.start_server(*V4, "--masquerade")
    namespace = lab.client()
    lab.start_client(namespace)
    assert lab.seen_from(namespace).startswith("192.0.2.")


@pytest.mark.parametrize("metric", [[], ["metric", "100"]], ids=["no metric", "metric"])
def test_a_full_tunnel_takes_everything_but_itself(lab: Lab, metric: list[str]) -> None:
    lab.start_server(*V4, *V6, "--masquerade")
    namespace = lab.client(default_route=False)
    lab.in_(namespace, "ip", "route", "add", "default", "via", SERVER_ADDRESS, *metric)
    before = lab.in_(namespace, "ip", "route", "show", "table", "main")
    client = lab.start_client(namespace, "--route", "0.0.0.0/0", "--route6", "::/0")
    assert lab.seen_from(namespace) == FAR_SIDE
    assert lab.seen_from(namespace, "2001:db8:7::7", port=7001) == "2001:db8:7::1"
    assert lab.pings(namespace, SERVER_ADDRESS), "the network at hand stays as it was"
    assert lab.in_(namespace, "ip", "route", "show", "table", "main") == before
    client.stop()
    assert lab.seen_from(namespace, port=7002).startswith("192.0.2.")


def test_the_peer_may_be_inside_a_routed_network(lab: Lab) -> None:
    lab.start_server(*V4, "--masquerade")
    namespace = lab.client()
    lab.start_client(namespace, "--route", "192.0.2.0/25", "--route", "192.0.2.1/32")
    assert lab.pings(namespace, "10.7.0.1")
    assert "dev tunnel" in lab.in_(namespace, "ip", "route", "get", SERVER_ADDRESS)


def test_a_strict_reverse_path_filter_is_coped_with(lab: Lab) -> None:
    lab.start_server(*V4, "--masquerade")
    namespace = lab.client()
    lab.in_(namespace, "sh", "-c", "echo 1 | tee /proc/sys/net/ipv4/conf/*/rp_filter")
    client = lab.start_client(namespace, "--route", "0.0.0.0/0")
    assert lab.seen_from(namespace) == FAR_SIDE
    client.stop()
    assert lab.in_(namespace, "cat", "/proc/sys/net/ipv4/conf/all/src_valid_mark").strip() == "0"
    assert "tunnel_rs" not in lab.in_(namespace, "nft", "list", "tables")


def test_ipv6_clients_reach_ipv4_hosts_by_nat64(lab: Lab, tmp_path: Path) -> None:
    text = "masquerade = true\n[iroh.nat64]\nenabled = true\nsource_ip = '10.64.0.1'\n"
    lab.start_server(*V6, "-c", config(lab, tmp_path, text))
    namespace = lab.client(default_route=False)
    lab.start_client(namespace, "--route6", "64:ff9b::/96")
    assert lab.pings(namespace, f"64:ff9b::{FAR}")
    assert lab.seen_from(namespace, f"64:ff9b::{FAR}") == FAR_SIDE


@pytest.mark.parametrize("isolated", [True, False])
def test_clients_reach_each_other_only_when_they_may(
    lab: Lab, tmp_path: Path, isolated: bool
) -> None:
    text = f"client_isolation = {str(isolated).lower()}\n"
    lab.start_server(*V4, *V6, "--masquerade", "-c", config(lab, tmp_path, text))
    one, other = lab.client(), lab.client()
    lab.start_client(one, token=0)
    address4, address6 = lab.start_client(other, token=1).wait("vpn_up")["addresses"]
    assert lab.pings(one, "10.7.0.1") and lab.pings(other, "10.7.0.1")
    for address in (address4, address6):
        assert lab.pings(one, address.partition("/")[0], seconds=2) is not isolated


def test_a_token_has_its_address(lab: Lab) -> None:
    server, namespace = lab.start_server(*V4), lab.client()
    seen = []
    for token in (0, 1, 0):
        client = lab.start_client(namespace, token=token)
        seen.append(client.wait("vpn_up")["addresses"])
        client.stop()
    assert seen[0] == seen[2] != seen[1]
    server.stop()


def test_the_server_is_restarted_and_the_device_stays(lab: Lab) -> None:
    server, namespace = lab.start_server(*V4), lab.client()
    client = lab.start_client(namespace)
    before = lab.in_(namespace, "ip", "-o", "link", "show", "tunnel0").split(":")[0]
    server.stop(signal.SIGKILL)
    client.wait("tunnel_lost")
    assert rules(lab, namespace), "the routes stay meanwhile"
    lab.start_server(*V4)
    client.wait("vpn_up", 2)
    assert lab.pings(namespace, "10.7.0.1")
    assert lab.in_(namespace, "ip", "-o", "link", "show", "tunnel0").split(":")[0] == before


@pytest.mark.parametrize("kill_switch", [False, True])
def test_what_a_killed_client_leaves_is_harmless_and_cleaned(lab: Lab, kill_switch: bool) -> None:
    lab.start_server(*V4, "--masquerade")
    namespace = lab.client()
    extra = ["--kill-switch"] if kill_switch else []
    client = lab.start_client(namespace, "--route", "0.0.0.0/0", *extra)
    assert client.stop(signal.SIGKILL) == -9
    eventually(lambda: "tunnel" not in lab.in_(namespace, "ip", "link"), lambda: "still there")
    assert rules(lab, namespace)
    if kill_switch:
        assert not lab.pings(namespace, FAR, seconds=1)
    else:
        assert lab.seen_from(namespace).startswith("192.0.2.")
    again = lab.start_client(namespace, "--route", "198.51.100.7/32")
    assert len([rule for rule in rules(lab, namespace) if "suppress_prefixlength 0" in rule]) == 0
    again.stop()
    assert rules(lab, namespace) == []
    assert lab.in_(namespace, "ip", "route", "show", "table", "29810", check=False).count("\n") <= 2
    assert lab.pings(namespace, FAR)


def test_cleanup_lifts_a_kill_switch_that_outlived_its_client(lab: Lab) -> None:
    lab.start_server(*V4, "--masquerade")
    namespace = lab.client()
    client = lab.start_client(namespace, "--route", "0.0.0.0/0", "--kill-switch")
    client.stop(signal.SIGKILL)
    cleaning = lab.start(namespace, "cleanup")
    assert cleaning.process.wait(TIMEOUT) == 0, cleaning.text
    assert rules(lab, namespace) == []
    assert lab.seen_from(namespace).startswith("192.0.2.")


def test_a_second_client_is_told_of_the_first(lab: Lab) -> None:
    lab.start_server(*V4)
    namespace = lab.client()
    lab.start_client(namespace)
    second = lab.start_client(namespace, up=False)
    assert second.process.wait(TIMEOUT) == 1
    assert "another VPN client is running" in second.text
    assert lab.pings(namespace, "10.7.0.1")


def test_a_wrong_token_is_refused_for_good(lab: Lab) -> None:
    lab.start_server(*V4)
    token = new_token()
    lab.tokens.write_text(token)  # the server does not read it again by itself
    client = lab.start_client(lab.client(), up=False)
    assert client.process.wait(TIMEOUT) == 3
    assert "Invalid authentication token" in client.text
    assert token not in client.text


def test_iperf3_both_ways_and_udp(lab: Lab) -> None:
    lab.start_server(*V4)
    namespace = lab.client()
    lab.start_client(namespace)
    sockets = ["ss", "-Hltn", "sport", "=", ":5201"]
    for options in ([], ["-R"], ["-u", "-b", "20M"]):
        listening = subprocess.Popen(
            ["ip", "netns", "exec", lab.server, "iperf3", "-s", "-1"], stdout=subprocess.DEVNULL
        )
        eventually(lambda: bool(lab.in_(lab.server, *sockets).strip()), lambda: "no iperf3")
        lab.in_(namespace, "iperf3", "-c", "10.7.0.1", "-t", "1", *options)
        listening.wait(TIMEOUT)


def test_the_kernel_takes_segments_that_were_joined(lab: Lab, tmp_path: Path) -> None:
    lab.start_server(*V4, *V6)
    namespace = lab.client()
    settings = tmp_path / "client.toml"
    settings.write_text('role = "vpnclient"\nmode = "iroh"\n[iroh]\noffload = false\n')
    lab.start_client(namespace, "-c", str(settings))
    sockets = ["ss", "-Hltn", "sport", "=", ":5201"]
    for address in ("10.7.0.1", "fd07::1"):
        listening = subprocess.Popen(
            ["ip", "netns", "exec", lab.server, "iperf3", "-s", "-1"], stdout=subprocess.DEVNULL
        )
        eventually(lambda: bool(lab.in_(lab.server, *sockets).strip()), lambda: "no iperf3")
        lab.in_(namespace, "iperf3", "-c", address, "-n", "5M")
        listening.wait(10)
    [device] = json.loads(lab.in_(lab.server, "ip", "-j", "-s", "link", "show", "tunnel0"))
    received = device["stats64"]["rx"]
    assert received["bytes"] > 5_000_000
    assert received["bytes"] / received["packets"] > 3000, "they came as 1440 bytes"
    names, values = [
        line.split()
        for line in lab.in_(lab.server, "cat", "/proc/net/snmp").splitlines()
        if line.startswith("Tcp:")
    ]
    assert dict(zip(names, values, strict=True))["InCsumErrors"] == "0"


def test_status_of_both_sides(lab: Lab) -> None:
    lab.start_server(*V4)
    namespace = lab.client()
    lab.start_client(namespace)
    assert lab.pings(namespace, "10.7.0.1")
    [client] = lab.status(namespace)
    [server] = lab.status(lab.server)
    assert (client["role"], client["connected"]) == ("vpnclient", True)
    assert client["path"] == f"{SERVER_ADDRESS}:4433" and client["rtt_ms"] > 0
    [seen] = server["clients"]
    assert seen["addresses"] == client["addresses"]
    assert seen["received_packets"] > 0 and seen["sent_packets"] > 0


@pytest.mark.parametrize("domains", ["", "push_domains = ['lan.example']\n"])
def test_resolvers_are_pushed_used_and_put_back(lab: Lab, tmp_path: Path, domains: str) -> None:
    text = f"push_dns = ['10.7.0.1']\n{domains}"
    lab.start_server(*V4, "-c", config(lab, tmp_path, text))
    namespace = lab.client()
    before = lab.resolv_conf(namespace).read_text()
    client = lab.start_client(namespace)
    during = lab.resolv_conf(namespace).read_text()
    assert "nameserver 10.7.0.1" in during and "192.0.2.53" not in during
    assert ("search lan.example" in during) is bool(domains)
    client.stop()
    assert lab.resolv_conf(namespace).read_text() == before


def test_one_command_inside_the_vpn(lab: Lab) -> None:
    lab.start_server(*V4, "--masquerade")
    namespace = lab.client()
    pings = f"ping -c 1 -w 5 10.7.0.1 && ping -c 1 -w 5 {FAR}"
    no_capability = "grep 'CapEff:.0000000000000000' /proc/self/status"
    script = f"{pings} && {no_capability} && ip -br addr && exit 7"
    command = lab.start_exec(namespace, "sh", "-c", script)
    assert command.process.wait(TIMEOUT) == 7, command.text
    assert "tunnel0" in command.text
    assert "tunnel" not in lab.in_(namespace, "ip", "link"), "the namespace itself is not touched"


def test_a_command_that_is_not_there_and_one_that_is_killed(lab: Lab) -> None:
    lab.start_server(*V4)
    namespace = lab.client()
    assert lab.start_exec(namespace, "/no/such/command").process.wait(TIMEOUT) == 127
    assert lab.start_exec(namespace, "sh", "-c", "kill -9 $$").process.wait(TIMEOUT) == 137


def test_a_stopped_exec_stops_its_command(lab: Lab) -> None:
    lab.start_server(*V4)
    running = lab.start_exec(lab.client(), "sh", "-c", "echo begun; exec sleep 1000")
    eventually(lambda: "begun" in running.text, lambda: running.text)
    assert running.stop() == 143


def test_without_privileges_the_remedies_are_told(lab: Lab) -> None:
    namespace = lab.client()
    client = lab.start_client(namespace, up=False, wrapper=("setpriv", "--bounding-set=-all"))
    assert client.process.wait(TIMEOUT) == 1
    assert "CAP_NET_ADMIN" in client.text and "exec -- COMMAND" in client.text
    assert "Traceback" not in client.text


def test_the_network_is_lost_for_a_while(lab: Lab) -> None:
    lab.start_server(*V4, "--masquerade")
    namespace = lab.client()
    client = lab.start_client(namespace, "--route", "0.0.0.0/0")
    began = time.monotonic()
    with lab.cut_off(namespace):
        client.wait("tunnel_lost")
        assert not lab.pings(namespace, FAR, seconds=1), "nothing leaves by another way"
        while time.monotonic() - began < OUTAGE:
            assert not lab.pings(namespace, FAR, seconds=1)
    client.wait("vpn_up", 2)
    assert lab.seen_from(namespace) == FAR_SIDE
