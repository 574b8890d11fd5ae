"""A server with several addresses answers from the one that was written to.

The kernel would take the first address of the interface for all answers, and a client drops what
comes from an address it has not dialled (RFC 9000 section 9).
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

ROOT = Path(__file__).parents[2]
SCENE = [sys.executable, "-m", "tests.netns.source_scene"]
ENVIRONMENT = os.environ | {"PYTHONPATH": f"src{os.pathsep}."}
FIRST = {"IPv4": "10.99.0.1", "IPv6": "fd99::1"}
SECOND = {"IPv4": "10.99.0.2", "IPv6": "fd99::2"}
WILDCARD = {"IPv4": "0.0.0.0", "IPv6": "::"}

pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(
        not hasattr(os, "geteuid") or os.geteuid() != 0 or shutil.which("ip") is None,
        reason="needs root and iproute2",
    ),
]


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@pytest.fixture
def wired() -> Iterator[tuple[str, str]]:
    """Two namespaces on one wire: the server's with two addresses of each family, the client's."""
    names = f"srv-{uuid4().hex[:8]}", f"cli-{uuid4().hex[:8]}"
    with ExitStack() as stack:
        for name in names:
            try:
                ip("netns", "add", name)
            except subprocess.CalledProcessError as error:
                pytest.skip(f"no network namespaces here: {error.stderr.strip()}")
            stack.callback(ip, "netns", "del", name)
        server, client = names
        ip("-n", server, "link", "add", "v0", "type", "veth", "peer", "v1", "netns", client)
        for name, device, addresses in (
            (server, "v0", ("10.99.0.1/24", "10.99.0.2/24", "fd99::1/64", "fd99::2/64")),
            (client, "v1", ("10.99.0.9/24", "fd99::9/64")),
        ):
            for address in addresses:
                options = ["nodad"] if ":" in address else []
                ip("-n", name, "addr", "add", address, "dev", device, *options)
            ip("-n", name, "link", "set", device, "up")
            ip("-n", name, "link", "set", "lo", "up")
        # Of two IPv6 addresses alike the kernel takes either; the route says which.
        ip("-n", server, "-6", "route", "replace", "fd99::9", "dev", "v0", "src", "fd99::1")
        yield server, client


@contextmanager
def serving(namespace: str, how: str) -> Iterator[dict[str, Any]]:
    process = subprocess.Popen(
        ["ip", "netns", "exec", namespace, *SCENE, "server", how],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def dial(namespace: str, *arguments: str) -> Any:
    done = subprocess.run(
        ["ip", "netns", "exec", namespace, *SCENE, "client", *arguments],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
@pytest.mark.parametrize("how", ["mirror", "endpoint"])
def test_a_client_reaches_a_server_at_any_of_its_addresses(
    wired: tuple[str, str], family: str, how: str
) -> None:
    server, client = wired
    with serving(server, how) as told:
        port = str(told["ports"][WILDCARD[family]])
        for address in (FIRST[family], SECOND[family]):
            answer = dial(client, told["id"], address, port)
            assert "error" not in answer
            assert address in answer["reached"]


@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
def test_left_to_the_kernel_only_the_first_address_would_work(
    wired: tuple[str, str], family: str
) -> None:
    server, client = wired
    with serving(server, "plain") as told:
        port = str(told["ports"][WILDCARD[family]])
        assert "reached" in dial(client, told["id"], FIRST[family], port)
        assert "no answer" in dial(client, told["id"], SECOND[family], port)["error"]
