"""A VPN server among several clients, good ones and bad ones, and real programs inside the VPN."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.vpn_lab import (
    AT,
    AT6,
    DIRECT,
    SERVER_ADDRESS6,
    TIMEOUT,
    Lab,
    eventually,
    needs_lab,
    vpn_lab,
)

pytestmark = [pytest.mark.netns, needs_lab, pytest.mark.timeout(240)]

NETWORK = ("--network", "10.7.0.0/24")
CLIENTS = int(os.environ.get("VPN_CLIENTS", "3"))
"""`make vpnlab` has ten."""

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with vpn_lab(tmp_path) as made:
        yield made


def test_many_clients_have_an_address_each_and_their_own_traffic(lab: Lab) -> None:
    lab.start_server(*NETWORK)
    namespaces = [lab.client() for _ in range(CLIENTS)]
    programs = [
        lab.start_client(namespace, token=number, up=False)
        for number, namespace in enumerate(namespaces)
    ]
    addresses = [program.wait("vpn_up")["addresses"][0].split("/")[0] for program in programs]
    assert len(set(addresses)) == CLIENTS
    assert all(lab.pings(namespace, "10.7.0.1") for namespace in namespaces)
    assert not lab.pings(namespaces[0], addresses[1], seconds=1)
    [server] = lab.status(lab.server)
    assert {client["addresses"][0] for client in server["clients"]} == set(addresses)
    assert all(client["sent_packets"] > 0 for client in server["clients"])
    assert sum(client["dropped"].get("isolated", 0) for client in server["clients"]) > 0
    programs[-1].stop()
    eventually(
        lambda: len(lab.status(lab.server)[0]["clients"]) == CLIENTS - 1, lambda: "still there"
    )
    assert lab.pings(namespaces[0], "10.7.0.1")


def test_ssh_and_names_inside_the_vpn(lab: Lab, tmp_path: Path) -> None:
    config = tmp_path / "server.toml"
    config.write_text('role = "vpnserver"\nmode = "iroh"\n[iroh]\npush_dns = ["10.7.0.1"]\n')
    lab.start_server(*NETWORK, "-c", str(config))
    namespace = lab.client()
    lab.start_client(namespace, "--route", "0.0.0.0/0")
    key = lab.start_sshd("10.7.0.1")
    lab.start_dnsmasq(lab.server, "10.7.0.1", "--address=/inside.example/10.7.0.1")
    options = ("-F", "none", "-i", str(key), "-o", "StrictHostKeyChecking=no")
    quiet = ("-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR")
    payload = tmp_path / "payload"
    payload.write_bytes(bytes(range(256)) * 4000)
    command = " ".join(("ssh", *options, *quiet, "root@inside.example", "cat"))
    script = f"{command} <{payload} | cmp - {payload} && echo same"
    client = lab.start(namespace, program=["sh", "-c", script])
    assert client.process.wait(TIMEOUT) == 0 and client.text == "same\n", client.text


def test_a_client_that_keeps_to_no_rule_harms_itself_alone(lab: Lab) -> None:
    server = lab.start_server(*NETWORK)
    bad, good = lab.client(), lab.client()
    lab.start_client(good, token=1)
    # The kernel answers what is sent to a closed port, as often as it is asked.
    lab.in_(lab.server, "sh", "-c", "echo 0 >/proc/sys/net/ipv4/icmp_ratelimit")
    token = lab.tokens.read_text().split()[0]
    intruder = lab.start(
        bad,
        program=[sys.executable, "-m", "tests.netns.vpn_intruder", lab.endpoint_id, AT, token],
        folder=ROOT,
    )
    eventually(lambda: "silent" in intruder.text, lambda: intruder.text)
    first, second, _ = intruder.text.splitlines()
    assert "65537 bytes" in first and "unknown type 119" in second
    assert all(lab.pings(good, "10.7.0.1", seconds=3) for _ in range(3))
    clients = lab.status(lab.server)[0]["clients"]
    assert len(clients) == 2 and server.process.poll() is None
    assert "Traceback" not in server.text


def test_with_cap_net_admin_alone_and_over_ipv6(lab: Lab) -> None:
    only = ("setpriv", "--inh-caps=-all,+net_admin", "--ambient-caps=-all,+net_admin")
    wrapper = (*only, "--bounding-set=-all,+net_admin")
    namespace = lab.client(ipv6=True)
    families = ("--network6", "fd07::/64", "--masquerade")
    lab.start_server(*NETWORK, *families, at=AT6, wrapper=wrapper)
    client = lab.start_client(
        namespace,
        *("--route", "0.0.0.0/0", "--route6", "::/0"),
        wrapper=wrapper,
        reach=(*DIRECT, "--peer-addr", AT6),
    )
    assert lab.seen_from(namespace, "2001:db8:7::7") == "2001:db8:7::1"
    assert lab.pings(namespace, "10.7.0.1") and lab.pings(namespace, SERVER_ADDRESS6)
    client.stop()
    rules = json.loads(lab.in_(namespace, "ip", "-j", "-6", "rule"))
    assert {rule["priority"] for rule in rules} == {0, 32766}
