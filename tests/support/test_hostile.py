"""The runtime's own test: an inner pytest run over tests that misbehave, named for their end."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.hostile import is_local_name

ROOT = Path(__file__).resolve().parents[2]

INI = """\
[pytest]
asyncio_mode=auto
asyncio_debug=true
asyncio_default_fixture_loop_scope=function
markers=netns: x
filterwarnings=error
"""

INNER = """
import asyncio, contextlib, socket
import pytest

@pytest.fixture
def udp():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        yield sock

def test_passes_with_loopback(udp):
    udp.connect(("127.0.0.1", 9))
    udp.sendto(b"x", ("127.0.0.1", 9))

def test_passes_with_multicast_on_loopback(udp):
    udp.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
    udp.sendto(b"x", ("224.0.0.251", 9))

def test_passes_with_a_finished_task():
    pass

async def test_passes_with_an_awaited_task():
    await asyncio.create_task(asyncio.sleep(0))

async def test_runs_in_debug_mode_and_passes():
    assert asyncio.get_running_loop().get_debug()

def test_fails_for_a_connect(udp):
    with pytest.raises(OSError):
        udp.connect(("192.0.2.1", 9))

def test_fails_for_a_datagram(udp):
    with pytest.raises(OSError):
        udp.sendto(b"x", ("192.0.2.1", 9))

def test_fails_for_a_message(udp):
    with pytest.raises(OSError):
        udp.sendmsg([b"x"], [], 0, ("192.0.2.1", 9))

def test_passes_with_a_broadcast_that_the_kernel_refuses(udp):
    with pytest.raises(OSError):
        udp.connect(("255.255.255.255", 9))

def test_fails_for_a_broadcast(udp):
    udp.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    with pytest.raises(OSError):
        udp.connect(("255.255.255.255", 9))

def test_fails_for_a_mapped_address():
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock, pytest.raises(OSError):
        sock.connect(("::ffff:192.0.2.1", 9))

def test_fails_for_multicast_on_a_real_interface(udp):
    with pytest.raises(OSError):
        udp.sendto(b"x", ("224.0.0.251", 9))

async def test_fails_for_a_look_up():
    with pytest.raises(OSError):
        await asyncio.get_running_loop().getaddrinfo("somewhere.example", 9)

async def test_fails_for_a_task_left():
    task = asyncio.create_task(asyncio.Event().wait(), name="left behind")

left = []

def test_fails_for_a_socket_left():
    left.append(socket.socket())

def test_passes_after_one_that_left_a_socket():
    left.pop().close()

def test_fails_for_an_accepted_socket_left(udp):
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname()):
            left.append(server.accept()[0])

def test_passes_later_too():
    left.pop().close()

@pytest.mark.netns
def test_passes_in_a_namespace_of_its_own(udp):
    with contextlib.suppress(OSError):  # the kernel may have no route, the guard has no word
        udp.connect(("192.0.2.1", 9))

def test_fails_for_a_skip():
    pytest.skip("no sshd here")

@pytest.mark.skipif(True, reason="no nginx here")
def test_fails_for_a_marked_skip():
    pass

@pytest.mark.xfail(reason="known")
def test_expected_to_end_badly():
    raise AssertionError

def test_is_skipped():
    pytest.skip("only on Windows: no such thing here")
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Names of the inner tests by outcome, and the whole output under `text`."""
    where = tmp_path_factory.mktemp("inner")
    (where / "test_inner.py").write_text(INNER)
    (where / "pytest.ini").write_text(INI)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-rA",
        "-p",
        "tests.support.hostile",
        "-p",
        "no:cacheprovider",
    ]
    environment = os.environ | {"CI": "true", "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        command, cwd=where, env=environment, capture_output=True, text=True, timeout=50, check=False
    )
    found: dict[str, set[str]] = {"text": {run.stdout + run.stderr}}
    for outcome, name in re.findall(
        r"^(PASSED|FAILED|ERROR|SKIPPED|XFAIL) .*?::(\w+)", run.stdout, re.M
    ):
        found.setdefault(outcome, set()).add(name)
    return found


def test_loopback_tasks_that_end_and_namespaces_are_accepted(outcomes: dict[str, set[str]]) -> None:
    bad = outcomes["FAILED"] | outcomes["ERROR"]
    wanted = {name for name in re.findall(r"def (test_\w*passes\w*)", INNER)}
    assert len(wanted) == 9
    assert wanted <= outcomes["PASSED"], outcomes["text"]
    assert not wanted & bad


def test_escapes_leaks_and_skips_fail_the_test_that_made_them(
    outcomes: dict[str, set[str]],
) -> None:
    wanted = set(re.findall(r"def (test_fails\w+)", INNER))
    assert wanted == outcomes["FAILED"] | outcomes["ERROR"], outcomes["text"]


def test_the_failure_says_what_was_tried_and_what_was_left(outcomes: dict[str, set[str]]) -> None:
    (text,) = outcomes["text"]
    for part in (
        "socket.connect to ('192.0.2.1', 9)",
        "left behind",
        "no sshd here",
        "<socket.socket",
    ):
        assert part in text


def test_a_skip_with_an_accepted_reason_and_an_expected_failure_stand(
    outcomes: dict[str, set[str]],
) -> None:
    (text,) = outcomes["text"]
    assert "only on Windows" in text
    assert " 1 skipped, 1 xfailed" in text


@pytest.mark.parametrize(
    "name", ["", None, "localhost", b"localhost", "127.0.0.1", "fe80::1%lo", "x.invalid"]
)
def test_literals_and_localhost_need_no_look_up(name: object) -> None:
    assert is_local_name(name)


@pytest.mark.parametrize("name", ["example.com", b"x.test", "127.1.example", "localhost.example"])
def test_any_other_name_needs_somebody_else(name: object) -> None:
    assert not is_local_name(name)
