"""Real programs for tests: our own CLI, OpenSSH, nginx, dnsmasq; on loopback, in a test's folder.

Every one is a context manager: it yields once the program itself has said that it is ready, and has
ended it on leaving. A program that ends early or stays silent fails the test with what it printed.
"""

import asyncio
import contextlib
import getpass
import json
import os
import re
import secrets
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
"""Debian keeps servers out of the PATH of ordinary users."""

SOURCES = Path(__file__).resolve().parents[2] / "src"
ENVIRONMENT = os.environ | {"PATH": PATH, "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(SOURCES)}
"""Our own programs run from this tree, installed or not."""

READY_WITHIN = 40.0
"""Seconds a program has to say that it is ready, on a busy machine."""

KEPT_LINES = 200
MAX_OUTPUT = 1 << 20


def find(program: str) -> str:
    """Full path of a program; skips the test when this machine does not have it."""
    found = shutil.which(program, path=PATH)
    if found is None:
        pytest.skip(f"needs {program}, which is not installed here")
    return found


_BELOW_EPHEMERAL = range(15_000, 32_768)
"""What the system gives to sockets that ask for any port lies above (Linux, macOS, Windows)."""

_given: set[int] = set()


def free_port() -> int:
    """A port of 127.0.0.1, free just now for TCP and UDP, for programs that cannot take port 0.

    Nobody is given it by chance between now and its use: it is outside the range of such ports,
    and no two calls of this process return the same.
    """
    while True:
        port = secrets.choice(_BELOW_EPHEMERAL)  # workers must not draw alike
        if port not in _given and _is_free(port):
            _given.add(port)
            return port


def _is_free(port: int) -> bool:
    try:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            with socket.socket(socket.AF_INET, kind) as sock:
                sock.bind(("127.0.0.1", port))
    except OSError:
        return False
    return True


@dataclass
class Program:
    """A running program whose output, stdout and stderr together, is read by line."""

    name: str
    process: asyncio.subprocess.Process
    lines: list[str] = field(default_factory=list)

    async def line(self, pattern: str) -> re.Match[str]:
        """The next line that `pattern` is found in."""
        try:
            async with asyncio.timeout(READY_WITHIN):
                async for line in self._read():
                    if found := re.search(pattern, line):
                        return found
        except TimeoutError:
            pytest.fail(f"{self.name} did not print {pattern!r} in time; it printed:\n{self.text}")
        pytest.fail(f"{self.name} ended before it printed {pattern!r}; it printed:\n{self.text}")

    async def _read(self) -> AsyncIterator[str]:
        assert self.process.stdout is not None
        while data := await self.process.stdout.readline():
            line = data.decode(errors="replace").rstrip()
            self.lines = [*self.lines[-KEPT_LINES:], line]
            yield line

    async def event(self, name: str) -> dict[str, Any]:
        """The next event of this name (a pattern) that one of our programs prints with `--json`."""
        found = await self.line(rf'^\{{"event": ?"{name}"')
        return dict(json.loads(found.string))

    async def drain(self) -> None:
        """Read to the end, so that a full pipe never stops the program."""
        async for _ in self._read():
            pass

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    async def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Signal the program and wait; its exit status. One that ignores it is killed, and so are
        the processes that it leaves behind."""
        children = descendants(self.process.pid)
        if self.process.returncode is None:
            self.process.send_signal(how)
        for child in children:  # at once: asyncio waits for its pipes too, which they may hold
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        try:
            async with asyncio.timeout(10):
                return await self.process.wait()
        except TimeoutError:
            self.process.kill()
            return await self.process.wait()


def descendants(pid: int) -> list[int]:
    """The processes below `pid`: sshd has one or two for each session. Linux only, else none."""
    found = [pid]
    for parent in found:
        with contextlib.suppress(OSError):
            children = Path(f"/proc/{parent}/task/{parent}/children").read_text()
            found.extend(map(int, children.split()))
    return found[1:]


@asynccontextmanager
async def running(*command: str | Path, ready: str | None = None) -> AsyncIterator[Program]:
    """Start a program, wait for the line `ready`, and end it on leaving."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        limit=MAX_OUTPUT,
        env=ENVIRONMENT,
    )
    program = Program(Path(command[0]).name, process)
    try:
        if ready is not None:
            await program.line(ready)
        yield program
    finally:
        await program.end()
        await program.drain()


async def output_of(*command: str | Path, within: float = 30, stdin: bytes | None = None) -> str:
    """Run a program to its end and return its stdout; anything but exit status 0 fails the test."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=ENVIRONMENT,
    )
    try:
        async with asyncio.timeout(within):
            out, err = await process.communicate(stdin)
    except BaseException:
        process.kill()
        await process.wait()
        raise
    if process.returncode:
        name = Path(command[0]).name
        pytest.fail(f"{name} ended with {process.returncode}:\n{err.decode(errors='replace')}")
    return out.decode(errors="replace")


# Our own programs


def cli(*arguments: str | Path) -> Sequence[str]:
    """The command line that runs `tunnel-rs` from this source tree."""
    return (sys.executable, "-m", "tunnel_rs", *map(str, arguments))


def ice(*arguments: str | Path) -> Sequence[str]:
    """The command line that runs `tunnel-rs-ice` from this source tree."""
    program = "from tunnel_rs.cli.ice import main; main()"
    return (sys.executable, "-c", program, *map(str, arguments))


OFFLINE = ("--relay-url", "none", "--dns-server", "none")
"""Options of a server or client that is to ask nothing of the internet."""


def client_of(endpoint_id: str, address: str, token_file: Path) -> Sequence[str]:
    """Command line of a client of this server, without what is to be forwarded."""
    where = ("--peer-addr", address, *OFFLINE)
    return cli("client", "-n", endpoint_id, *where, "--auth-token-file", token_file)


@dataclass(frozen=True)
class OurServer:
    """A running `tunnel-rs server` and what a client has to know of it."""

    program: Program
    endpoint_id: str
    address: str
    token_file: Path

    @property
    def client(self) -> Sequence[str]:
        return client_of(self.endpoint_id, self.address, self.token_file)


@asynccontextmanager
async def our_server(folder: Path, *options: str) -> AsyncIterator[OurServer]:
    """`tunnel-rs server` with a fresh key and token, on 127.0.0.1."""
    key, tokens = folder / "server.key", folder / "tokens.txt"
    if not key.exists():
        await output_of(*cli("generate-server-key", "-o", key))
        tokens.write_text(await output_of(*cli("generate-token")))
    identity = ("--secret-file", key, "--auth-tokens-file", tokens, "--bind", "127.0.0.1:0")
    async with running(*cli("server", "--json", *identity, *OFFLINE, *options)) as program:
        ready = await program.event("ready")
        async with draining(program):
            yield OurServer(program, ready["endpoint_id"], ready["addresses"][0], tokens)


@asynccontextmanager
async def our_client(client: Sequence[str], *options: str) -> AsyncIterator[list[int]]:
    """`tunnel-rs client` (see `client_of`), connected; yields the ports that it listens on."""
    awaited = sum(option in ("-t", "--target", "--socks5") for option in options) + 1
    async with running(*client, "--json", *options) as program:
        ports = []
        for _ in range(awaited):
            event = await program.event("(?:listening|tunnel_up)")
            if event["event"] == "listening":
                ports.append(int(event["address"].rpartition(":")[2]))
        async with draining(program):
            yield ports


@asynccontextmanager
async def draining(program: Program) -> AsyncIterator[None]:
    task = asyncio.create_task(program.drain(), name=f"drain {program.name}")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


# Programs of others


@dataclass(frozen=True)
class Sshd:
    """A running OpenSSH server that accepts one key, for the user who runs the tests."""

    port: int
    key: Path

    @property
    def options(self) -> Sequence[str]:
        """What `ssh` and `scp` need to log in without asking, and without anybody's settings."""
        pairs = {
            "IdentityFile": self.key,
            "IdentitiesOnly": "yes",
            "StrictHostKeyChecking": "no",
            "UserKnownHostsFile": "/dev/null",
            "GlobalKnownHostsFile": "/dev/null",
            "BatchMode": "yes",
            "LogLevel": "ERROR",
        }
        return ("-F", "none", *(f"-o{name}={value}" for name, value in pairs.items()))

    @property
    def login(self) -> str:
        return f"{getpass.getuser()}@127.0.0.1"


@asynccontextmanager
async def sshd(folder: Path) -> AsyncIterator[Sshd]:
    """OpenSSH's server with keys of its own."""
    server = find("sshd")
    host_key, key = folder / "host_key", folder / "user_key"
    for path in (host_key, key):
        await output_of(find("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", path)
    if os.geteuid() == 0:
        os.makedirs(
            "/run/sshd", mode=0o755, exist_ok=True
        )  # sshd insists; packages may not make it
    port = free_port()
    config = folder / "sshd_config"
    config.write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {host_key}\nPidFile none\nUsePAM no\n"
        f"AuthorizedKeysFile {key}.pub\nStrictModes no\nPasswordAuthentication no\n"
        "KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\nUseDNS no\n"
        "Subsystem sftp internal-sftp\nMaxStartups 100\n"
    )
    async with running(server, "-D", "-e", "-f", config, ready="Server listening") as program:
        async with draining(program):
            yield Sshd(port, key)


@asynccontextmanager
async def nginx(folder: Path) -> AsyncIterator[int]:
    """nginx serving `folder / "www"`; yields its port."""
    (folder / "www").mkdir(exist_ok=True)
    port = free_port()
    config = folder / "nginx.conf"
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = f"user {getpass.getuser()};\n" if os.geteuid() == 0 else ""
    config.write_text(
        f"{user}daemon off;\npid {folder}/nginx.pid;\nerror_log stderr notice;\n"
        "worker_processes 1;\nevents { worker_connections 1024; }\n"
        f"http {{ access_log off;\n{temporary}"
        f"server {{ listen 127.0.0.1:{port} backlog=1024; root {folder}/www; }} }}\n"
    )
    command = (find("nginx"), "-p", folder, "-e", "stderr", "-c", config)
    async with running(*command, ready="start worker process ") as program, draining(program):
        yield port


@asynccontextmanager
async def dnsmasq(addresses: dict[str, str]) -> AsyncIterator[int]:
    """A DNS server that knows `addresses` and asks nobody else; yields its UDP port."""
    port = free_port()
    command = (
        *(find("dnsmasq"), "--no-daemon", "--conf-file=/dev/null", "--no-resolv", "--no-hosts"),
        *("--listen-address=127.0.0.1", "--bind-interfaces", f"--port={port}", "--cache-size=0"),
        *(f"--user={getpass.getuser()}", "--pid-file"),
        *(f"--address=/{name}/{ip}" for name, ip in addresses.items()),
    )
    async with running(*command, ready="dnsmasq: started") as program, draining(program):
        yield port


def numbered(count: int) -> Iterator[tuple[str, str]]:
    """`count` host names of a reserved domain with an address of a documentation network each."""
    return ((f"host{n}.example", f"192.0.2.{n}") for n in range(1, count + 1))
