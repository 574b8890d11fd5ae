"""A port of a real router's: miniupnpd grants it, a host outside sends to it (root, Linux)."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.netns.nat_lab import NatLab, missing
from tests.support.vpn_lab import eventually

OUTSIDE = "21.0.0.1"
"""The router's address in the lab's internet; miniupnpd wants one that is not for documentation."""

HOST6 = "2001:db8:1::2"

RULES = """
table inet filter {
  chain forward { type filter hook forward priority 0; policy drop;
    iifname "lan" accept
    ct state established,related accept
    jump miniupnpd
  }
  chain miniupnpd { }
  chain prerouting { type nat hook prerouting priority dstnat; jump prerouting_miniupnpd
  }
  chain postrouting { type nat hook postrouting priority srcnat;
    jump postrouting_miniupnpd
    oifname "wan" masquerade
  }
  chain prerouting_miniupnpd { }
  chain postrouting_miniupnpd { }
}
"""
SETTINGS = f"""
ext_ifname=wan
ext_ip={OUTSIDE}
listening_ip=lan
enable_natpmp=yes
enable_upnp=yes
secure_mode=yes
uuid=33dad6e4-5f1a-4c88-8f56-366bbed18bde
"""


def absent() -> str:
    return missing() or ("" if shutil.which("miniupnpd") else "needs miniupnpd")


pytestmark = [
    pytest.mark.netns,
    pytest.mark.slow,
    pytest.mark.skipif(bool(absent()), reason=absent() or "a router is possible"),
]


@contextmanager
def miniupnpd(lab: NatLab, directory: Path) -> Iterator[None]:
    """The router's service, once it listens."""
    settings = directory / "miniupnpd.conf"
    settings.write_text(SETTINGS)
    argv = ["miniupnpd", "-d", "-f", str(settings), "-P", str(directory / "pid")]
    process = lab.start("natA", argv, stderr=subprocess.PIPE)
    assert process.stderr is not None
    said = b""
    while b"Listening for NAT-PMP/PCP" not in said:
        line = process.stderr.readline()
        assert line, said
        said += line
    reading = threading.Thread(target=process.stderr.read)  # it would block with a full pipe
    reading.start()
    try:
        yield
    finally:
        process.kill()
        process.wait()
        reading.join()
        process.stderr.close()


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatLab]:
    directory = tmp_path_factory.mktemp("router")
    lab = NatLab(f"upnp{os.getpid() % 100_000}", directory)
    try:
        lab.build()
        lab.run("natA", f"ip addr add {OUTSIDE}/24 dev wan")
        lab.run("pub", "ip addr add 21.0.0.9/24 dev br0")
        lab.run("natA", "nft -f -", RULES)
        with miniupnpd(lab, directory):
            yield lab
    finally:
        lab.tear_down()


def rules(lab: NatLab) -> str:
    return lab.run("natA", "nft list ruleset")


def lets_a_stranger_in_until_we_leave(lab: NatLab, way: str, ip: str, family: str) -> None:
    argv = [sys.executable, "-m", "tests.netns.router_scene", way]
    host = lab.start("hostA", argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert host.stdin is not None
    assert host.stdout is not None
    told, _, port = host.stdout.readline().decode().strip().rpartition(":")
    assert told.strip("[]") == ip
    word = f"import socket; s = socket.socket(socket.{family}, socket.SOCK_DGRAM); "
    word += f"s.sendto(b'hello', ('{ip}', {port}))"
    lab.run("pub", [sys.executable, "-c", word])
    assert host.stdout.readline() == b"hello\n"
    assert f"dport {port}" in rules(lab)
    host.stdin.close()
    assert host.stdout.readline() == b"None\n"
    assert host.wait(5) == 0
    host.stdout.close()
    # A program that ends gives the router half a second; a busy one may take longer.
    eventually(lambda: f"dport {port}" not in rules(lab), lambda: rules(lab))


@pytest.mark.parametrize("way", ["PCP", "NAT-PMP", "UPnP"])
def test_a_router_leads_strangers_to_us_until_we_leave(lab: NatLab, way: str) -> None:
    lets_a_stranger_in_until_we_leave(lab, way, OUTSIDE, "AF_INET")


def test_a_router_lets_strangers_in_by_ipv6_until_we_leave(lab: NatLab) -> None:
    """Its address is of link-local scope, as routers announce themselves."""
    shown = lab.run("natA", "ip -6 -o addr show dev lan scope link")
    router = shown.split("inet6 ")[1].partition("/")[0]
    for command in (
        f"addr add {HOST6}/64 dev eth0 nodad",
        f"-6 route add default via {router} dev eth0",
    ):
        lab.run("hostA", f"ip {command}")
    lets_a_stranger_in_until_we_leave(lab, "IPv6", HOST6, "AF_INET6")
