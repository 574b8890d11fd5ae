"""`tunnel-rs dns-server`, as a program of its own."""

import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.support.discovery import packet
from tests.support.program import tunnel_rs
from tests.support.relay_peers import write_certificate
from tests.support.servers import Program, running

from tunnel_rs.errors import ExitStatus
from tunnel_rs.iroh.pkarr_client import PkarrClient
from tunnel_rs.iroh.publish import unix_microseconds

NOW = unix_microseconds()


def write(tmp_path: Path, more: str = "") -> Path:
    file = tmp_path / "dns.toml"
    file.write_text(
        f'data_dir = "{tmp_path}/data"\n[http]\nport = 0\n[dns]\nport = 0\n'
        f'[metrics]\nbind_addr = "127.0.0.1:0"\n{more}'
    )
    return file


@asynccontextmanager
async def dns_server(config: Path) -> AsyncIterator[tuple[Program, dict[str, Any]]]:
    command = (sys.executable, "-m", "tunnel_rs", "dns-server", "-c", config, "--json")
    async with running(*command) as program:
        yield program, await program.event("ready")


async def test_records_survive_a_restart(tmp_path: Path) -> None:
    record = packet(timestamp=NOW)
    config = write(tmp_path)
    async with dns_server(config) as (program, ready):
        assert ready["data"] == f"{tmp_path}/data" and ready["https"] is None
        async with PkarrClient(ready["urls"][0]) as client:
            await client.put(record)
        assert await program.end(signal.SIGINT) == ExitStatus.INTERRUPTED
    async with dns_server(config) as (program, ready):
        async with PkarrClient(ready["urls"][0]) as client:
            assert await client.get(record.endpoint_id) == record


async def test_sighup_reads_the_certificate_again(tmp_path: Path) -> None:
    certificate, key = write_certificate(tmp_path)
    https = (
        f'[https]\nport = 0\ncert_path = "{certificate}"\nkey_path = "{key}"\n'
        'domains = ["localhost"]\n'
    )
    config = write(tmp_path, https)
    async with dns_server(config) as (program, ready):
        [url] = ready["urls"]
        assert url.startswith("https://localhost:")
        async with PkarrClient(url, ca_file=certificate) as client:
            await client.put(packet(timestamp=NOW))
        write_certificate(tmp_path)
        config.write_text(config.read_text() + "[zone_store]\nmax_records = 5\n")
        program.process.send_signal(signal.SIGHUP)
        assert (await program.event("notice"))["text"] == "settings read again"
        notice = await program.event("notice")
        assert notice["text"] == "changed, but used after a restart: all that has changed"
        async with PkarrClient(url, ca_file=certificate) as client:
            await client.put(packet(timestamp=NOW + 1))


async def test_it_says_for_people_how_to_use_it(tmp_path: Path) -> None:
    command = (sys.executable, "-m", "tunnel_rs", "dns-server", "-c", write(tmp_path))
    async with running(*command) as program:
        await program.line("Discovery server is ready")
        await program.line(r"DNS: 127\.0\.0\.1:\d+ \(UDP and TCP\), dns\.localhost\.")
        await program.line(r"Use it with: --dns-server http://127\.0\.0\.1:\d+/pkarr")


def test_a_mistake_in_the_file_is_one_line_and_status_6(tmp_path: Path) -> None:
    file = write(tmp_path, "[mainlin]\nenabled = true\n")
    ended = tunnel_rs("dns-server", "-c", str(file))
    assert ended.status == ExitStatus.INVALID_CONFIG
    assert ended.err == f"error: {file}: mainlin: unknown key (did you mean 'mainline'?)\n"
