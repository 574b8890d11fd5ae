"""The programs themselves, in manual mode over files."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.support.sockets import TcpTarget

from tunnel_rs.errors import ExitStatus

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = "from tunnel_rs.cli.ice import main; main()"


def start(directory: Path, *arguments: str) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONWARNINGS": "default"}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=directory,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


FILES: Sequence[str] = ("--no-stun", "--offer-file", "offer", "--answer-file", "answer")


@pytest.mark.slow
async def test_stdio_goes_through_and_both_programs_end_in_order(tmp_path: Path) -> None:
    import asyncio

    from tests.support.sockets import read_to_eof, send

    target = TcpTarget()
    server = start(tmp_path, "server", "manual", "--allowed-tcp", "127.0.0.0/8", *FILES)
    client = start(tmp_path, "client", "manual", "--stdio", "-s", target.url, *FILES)

    async def serve() -> None:
        sock = await target.accept()
        data = await read_to_eof(sock)
        await send(sock, data[::-1])
        sock.close()

    serving = asyncio.create_task(serve())
    out, err = await asyncio.to_thread(client.communicate, b"hello", 40)
    await serving
    _, server_err = await asyncio.to_thread(server.communicate, b"", 40)
    assert (out, client.returncode) == (b"olleh", ExitStatus.DONE), err.decode()
    assert server.returncode == ExitStatus.DONE, server_err.decode()
    assert b"Traceback" not in err + server_err
    target.close()


@pytest.mark.slow
def test_a_server_that_waits_for_an_offer_ends_with_a_signal(tmp_path: Path) -> None:
    server = start(tmp_path, "server", "manual", "--allowed-tcp", "127.0.0.0/8", *FILES)
    assert server.stderr is not None
    while b"waiting for the offer" not in server.stderr.readline():
        assert server.poll() is None
    server.send_signal(signal.SIGTERM)
    _, err = server.communicate(timeout=20)
    assert server.returncode == ExitStatus.TERMINATED and b"Traceback" not in err


@pytest.mark.skipif(os.name == "nt", reason="needs SIGHUP")
def test_sighup_changes_what_may_be_asked_for(tmp_path: Path) -> None:
    from tunnel_rs.proto.ice_messages import IceParameters, Offer, encode
    from tunnel_rs.proto.manual_text import BlockKind, encode_block

    file = tmp_path / "server.toml"

    def write(networks: str) -> None:
        head = 'role = "server"\nmode = "manual"\n[manual.allowed_sources]\n'
        file.write_text(f"{head}tcp = [{networks}]\n")

    write('"127.0.0.0/8"')
    server = start(tmp_path, "server", "-c", str(file), "--no-stun", "--offer-file", "offer")
    assert server.stderr is not None

    def hang_up(expected: bytes) -> None:
        server.send_signal(signal.SIGHUP)
        while expected not in server.stderr.readline():  # type: ignore[union-attr]
            assert server.poll() is None

    while b"waiting for the offer" not in server.stderr.readline():
        assert server.poll() is None
    write("nonsense")
    hang_up(b"the settings in use stay as they are")
    write('"192.0.2.0/24"')
    hang_up(b"settings read again: allowed TCP: 192.0.2.0/24; allowed UDP: nothing")
    ice = IceParameters("u" * 16, "p" * 22, ())
    offer = encode_block(BlockKind.OFFER, encode(Offer(ice, source="tcp://127.0.0.1:22")))
    (tmp_path / "offer").write_text(offer)
    _, err = server.communicate(timeout=40)
    assert server.returncode == ExitStatus.FAILURE and b"not among the sources" in err


def test_a_refused_source_ends_the_server(tmp_path: Path) -> None:
    from tunnel_rs.proto.ice_messages import IceParameters, Offer, encode
    from tunnel_rs.proto.manual_text import BlockKind, encode_block

    ice = IceParameters("u" * 16, "p" * 22, ())
    block = encode_block(BlockKind.OFFER, encode(Offer(ice, source="tcp://192.0.2.1:22")))
    server = start(tmp_path, "server", "manual", "--allowed-tcp", "127.0.0.0/8", "--no-stun")
    out, err = server.communicate(block.encode(), timeout=40)
    assert server.returncode == ExitStatus.FAILURE and out == b""
    assert b"not among the sources this server allows" in err and b"Traceback" not in err
