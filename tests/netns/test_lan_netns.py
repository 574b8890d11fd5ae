"""LAN discovery between processes in network namespaces. Run as a script it is such a process."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tunnel_rs.iroh.lan import LanDiscovery
from tunnel_rs.reports import Notice, Report
from tunnel_rs.values import EndpointId, SocketAddr

pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(
        not hasattr(os, "geteuid") or os.geteuid() != 0 or shutil.which("ip") is None,
        reason="needs root and iproute2",
    ),
]

SOURCES = Path(__file__).parents[2] / "src"
IDS = [
    EndpointId.parse("197f6b23e16c8532c6abc838facd5ea789be0c76b2920334039bfa8b3d368d61"),
    EndpointId.parse("ae58ff8833241ac82d6ff7611046ed67b5072d142c588d0063e942d9a75502b6"),
]
BOUND = [SocketAddr("0.0.0.0", 4444), SocketAddr("::", 4444)]


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


Namespace = Callable[..., str]


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    """Makes network namespaces in which only the loopback interface is up, if that."""
    with ExitStack() as stack:

        def make(*, loopback: bool = True) -> str:
            name = f"lan-{uuid4().hex[:8]}"
            try:
                ip("netns", "add", name)
            except subprocess.CalledProcessError as error:
                pytest.skip(f"no network namespaces here: {error.stderr.strip()}")
            stack.callback(ip, "netns", "del", name)
            if loopback:
                ip("-n", name, "link", "set", "lo", "up")
            return name

        yield make


def join_by_wire(first: str, second: str, *prefixes: str) -> None:
    """Connect two namespaces by a pair of veths that have the addresses 1 and 2 of each prefix."""
    link = f"v{uuid4().hex[:8]}"
    ends = ((first, link + "a", "1"), (second, link + "b", "2"))
    ip(
        "link",
        "add",
        ends[0][1],
        "netns",
        first,
        "type",
        "veth",
        "peer",
        ends[1][1],
        "netns",
        second,
    )
    for name, device, last in ends:
        for prefix in prefixes:
            nodad = ["nodad"] if ":" in prefix else []
            ip("-n", name, "address", "add", f"{prefix}{last}/24", "dev", device, *nodad)
        ip("-n", name, "link", "set", device, "up")


@contextmanager
def process(namespace: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = ["ip", "netns", "exec", namespace, sys.executable, "-W", "error", __file__]
    running = subprocess.Popen(
        [*command, *arguments],
        env=os.environ | {"PYTHONPATH": str(SOURCES)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with running:
        try:
            yield running
        finally:
            running.communicate(timeout=10)
    assert running.returncode == 0


def answer_of(running: subprocess.Popen[str]) -> Any:
    assert running.stdout is not None
    return json.loads(running.stdout.readline())


def find(namespace: str, *wanted: EndpointId, seconds: float = 5.0) -> list[dict[str, Any]]:
    """Look up each id in turn with a fresh client: addresses, and seconds until the first."""
    with process(namespace, "find", str(seconds), *map(str, wanted)) as running:
        return [answer_of(running) for _ in wanted]


def test_server_and_client_find_each_other_on_one_machine_without_any_network(
    namespace: Namespace,
) -> None:
    machine = namespace()
    with process(machine, "announce", str(IDS[0])) as server:
        assert answer_of(server) == []
        [found] = find(machine, IDS[0])
    assert found["addresses"][0] == "127.0.0.1:4444"
    assert found["elapsed"] < 1.0


@pytest.mark.parametrize(
    ("prefixes", "addresses"),
    [
        (["198.18.0."], {"198.18.0.1:4444"}),
        (["fd12:3456::"], {"[fd12:3456::1]:4444"}),
        (["198.18.0.", "fd12:3456::"], {"198.18.0.1:4444", "[fd12:3456::1]:4444"}),
    ],
    ids=["IPv4", "IPv6", "both"],
)
def test_server_and_client_find_each_other_over_a_wire(
    namespace: Namespace, prefixes: list[str], addresses: set[str]
) -> None:
    near, far = namespace(), namespace()
    join_by_wire(far, near, *prefixes)
    with process(far, "announce", str(IDS[0])) as server:
        assert answer_of(server) == []
        [found] = find(near, IDS[0])
    assert set(found["addresses"]) == addresses, "no loopback address of the far machine"
    assert found["elapsed"] < 1.0


def test_two_servers_on_one_machine_are_told_apart(namespace: Namespace) -> None:
    near, far = namespace(), namespace()
    join_by_wire(far, near, "198.18.0.")
    with process(far, "announce", str(IDS[0])) as one, process(far, "announce", str(IDS[1])) as two:
        assert [answer_of(one), answer_of(two)] == [[], []]
        found = find(near, *IDS)
    assert [each["id"] for each in found] == [str(each) for each in IDS]
    assert all(each["elapsed"] < 1.0 for each in found)


@pytest.mark.slow
def test_a_wire_that_is_plugged_in_later_is_used_after_the_next_look(namespace: Namespace) -> None:
    near, far = namespace(), namespace()
    with process(far, "announce", str(IDS[0])) as server:
        assert answer_of(server) == []
        join_by_wire(far, near, "198.18.0.")
        [found] = find(near, IDS[0], seconds=10.0)
    assert found["addresses"] == ["198.18.0.1:4444"]


def test_a_machine_without_any_interface_says_that_discovery_is_off(namespace: Namespace) -> None:
    with process(namespace(loopback=False), "announce", str(IDS[0])) as server:
        [notice] = answer_of(server)
    assert notice.startswith("LAN discovery is off: ")


# The processes


def tell(answer: object) -> None:
    print(json.dumps(answer), flush=True)


async def announce(endpoint_id: EndpointId) -> None:
    """Announce until standard input ends; tell the notices of the start."""
    notices: list[Report] = []
    lan = LanDiscovery(notices.append)
    await lan.start()
    lan.announce(endpoint_id, lambda: BOUND)
    tell([notice.text for notice in notices if isinstance(notice, Notice)])
    await asyncio.to_thread(sys.stdin.read)
    await lan.close()


async def find_one(endpoint_id: EndpointId, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    found: asyncio.Queue[SocketAddr] = asyncio.Queue()
    began = loop.time()
    lan = LanDiscovery()
    await lan.start()
    lan.lookup(endpoint_id, found.put_nowait)
    async with asyncio.timeout(seconds):
        addresses = [str(await found.get())]
    elapsed = loop.time() - began
    while not found.empty():
        addresses.append(str(found.get_nowait()))
    await lan.close()
    tell({"id": str(endpoint_id), "addresses": addresses, "elapsed": elapsed})


async def main(role: str, *arguments: str) -> None:
    if role == "announce":
        await announce(EndpointId.parse(arguments[0]))
        return
    for text in arguments[1:]:
        await find_one(EndpointId.parse(text), float(arguments[0]))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
