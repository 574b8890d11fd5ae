"""The forwarders that are compared: each brings up a local port that leads to a target port.

To add one, or one of ours with other settings, write a context manager like these and put it into
`LINES`.
"""

import getpass
import json
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from bench.processes import PATH, BenchError, Program, printed, python

HERE = Path(__file__).resolve().parent
CORES = sorted(os.sched_getaffinity(0))


def core(side: int) -> int | None:
    """The processor for side 0 (client, "A") or 1 (server, "B"); None on a machine with one."""
    return CORES[side % len(CORES)] if len(CORES) > 1 else None


@dataclass(frozen=True)
class Line:
    """A forwarder that is up."""

    port: int
    """Where to connect to."""
    client: tuple[int, ...] = ()
    """Processes on the side of the local port ("A")."""
    server: tuple[int, ...] = ()
    """Processes on the side of the target ("B")."""
    programs: tuple[Program, ...] = field(default=(), repr=False)

    def settle(self) -> None:
        for program in self.programs:
            program.discard_output()
            if program.ended:
                raise BenchError(f"{' '.join(program.command)}: it ended")


def _port(program: Program) -> int:
    return int(program.wait_for("port ").rpartition("port ")[2])


@contextmanager
def direct(target: int) -> Iterator[Line]:
    """No forwarder: what the machine and the traffic tool can do."""
    yield Line(target)


@contextmanager
def openssh(target: int) -> Iterator[Line]:
    """`ssh -L` with its default cipher, its own server on a free port."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name in ("host_key", "user_key"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        port, local = free_port(), free_port()
        (folder / "config").write_text(
            f"ListenAddress 127.0.0.1:{port}\nHostKey {folder}/host_key\nPidFile none\nUsePAM no\n"
            f"AuthorizedKeysFile {folder}/user_key.pub\nStrictModes no\n"
            "PermitRootLogin prohibit-password\nPasswordAuthentication no\n"
        )
        sshd = _which("sshd")
        server = Program([sshd, "-D", "-e", "-f", folder / "config"], core=core(1))
        stack.callback(server.stop)
        server.wait_for("Server listening")
        client = Program(
            [
                *("ssh", "-v", "-F", "none", "-N", "-p", str(port), "-i", folder / "user_key"),
                *("-oStrictHostKeyChecking=no", "-oUserKnownHostsFile=/dev/null"),
                *("-oBatchMode=yes", "-oExitOnForwardFailure=yes"),
                *("-L", f"127.0.0.1:{local}:127.0.0.1:{target}", f"{getpass.getuser()}@127.0.0.1"),
            ],
            core=core(0),
        )
        stack.callback(client.stop)
        client.wait_for("Entering interactive session")
        yield Line(local, (client.pid,), (server.pid,), (client, server))


@contextmanager
def asyncssh(target: int) -> Iterator[Line]:
    script = HERE / "asyncssh_forward.py"
    with Program(python(script, "server"), core=core(1)) as server:
        arguments = (str(_port(server)), str(target))
        with Program(python(script, "client", *arguments), core=core(0)) as client:
            yield Line(_port(client), (client.pid,), (server.pid,), (client, server))


@contextmanager
def stock_aioquic(target: int) -> Iterator[Line]:
    script = HERE / "stock_aioquic.py"
    with Program(python(script, "server", str(target)), core=core(1)) as server:
        with Program(python(script, "client", str(_port(server))), core=core(0)) as client:
            yield Line(_port(client), (client.pid,), (server.pid,), (client, server))


@contextmanager
def ours(
    target: int, *, settings: str = "", runner: tuple[str, ...] = ("-m", "tunnel_rs")
) -> Iterator[Line]:
    """`tunnel-rs server` and `tunnel-rs client`. `settings`: lines of TOML for both sides, from
    the table `[iroh.transport]`. `runner`: what Python runs as `tunnel-rs`."""
    with OurServer(settings=settings, allowed_tcp=("127.0.0.0/8",), runner=runner) as server:
        with server.client("-s", f"tcp://127.0.0.1:{target}", "-t", "127.0.0.1:0") as client:
            port = listening(client)
            client.wait_for('"tunnel_up"')
            programs = (client, server.program)
            yield Line(port, (client.pid,), (server.program.pid,), programs)


@contextmanager
def ice(target: int) -> Iterator[Line]:
    """`tunnel-rs-ice` in manual mode, over addresses of this machine: loopback when it has no other
    (`unshare -n`), and only then comparable with the lines that go over 127.0.0.1."""
    runner = ("-c", "from tunnel_rs.cli.ice import main; main()")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        offer, answer = folder / "offer", folder / "answer"
        common = ("--no-stun", "--json", "--offer-file", offer, "--answer-file", answer)
        allowed = ("--allowed-tcp", "127.0.0.0/8")
        server = Program(python(*runner, "server", "manual", *common, *allowed), core=core(1))
        stack.callback(server.stop)
        tunnel = ("-s", f"tcp://127.0.0.1:{target}", "-t", "127.0.0.1:0")
        client = Program(python(*runner, "client", "manual", *common, *tunnel), core=core(0))
        stack.callback(client.stop)
        port = listening(client)
        client.wait_for('"tunnel_up"')
        yield Line(port, (client.pid,), (server.pid,), (client, server))


def listening(client: Program) -> int:
    """The next port that a client of ours says it listens on."""
    return int(json.loads(client.wait_for('"listening"'))["address"].rpartition(":")[2])


OFFLINE = ("--relay-url", "none", "--dns-server", "none")


class OurServer:
    """A running `tunnel-rs server` with a fresh key and token; makes clients of itself."""

    def __init__(
        self,
        *,
        settings: str = "",
        allowed_tcp: tuple[str, ...] = (),
        allowed_udp: tuple[str, ...] = (),
        options: tuple[str, ...] = (),
        runner: tuple[str, ...] = ("-m", "tunnel_rs"),
    ) -> None:
        """`runner`: what Python runs as `tunnel-rs`."""
        self._runner = runner
        self._stack = ExitStack()
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        self._settings = settings
        try:
            self._start(allowed_tcp, allowed_udp, options)
        except BaseException:
            self._stack.close()
            raise

    def _start(self, tcp: tuple[str, ...], udp: tuple[str, ...], options: tuple[str, ...]) -> None:
        key, self._token = self._folder / "server.key", self._folder / "token.txt"
        printed("-m", "tunnel_rs", "generate-server-key", "-o", key)
        self._token.write_text(printed("-m", "tunnel_rs", "generate-token"))
        networks = [part for network in tcp for part in ("--allowed-tcp", network)]
        networks += [part for network in udp for part in ("--allowed-udp", network)]
        identity = ("--secret-file", key, "--auth-tokens-file", self._token)
        place = ("--json", "--bind", "127.0.0.1:0", *OFFLINE)
        rest = (*self._config("server"), *place, *options)
        command = python(*self._runner, "server", *identity, *networks, *rest)
        self.program = Program(command, core=core(1))
        self._stack.callback(self.program.stop)
        ready = json.loads(self.program.wait_for('"ready"'))
        self.endpoint_id, self.address = ready["endpoint_id"], ready["addresses"][0]

    def client(self, *options: str, address: str | None = None) -> Program:
        """A client that reaches the server at `address`, by default the server's own."""
        known = ("-n", self.endpoint_id, "--peer-addr", address or self.address)
        secret = ("--auth-token-file", self._token)
        rest = (*self._config("client"), "--json", *OFFLINE, *options)
        return Program(python(*self._runner, "client", *known, *secret, *rest), core=core(0))

    def _config(self, role: str) -> tuple[str, ...]:
        if not self._settings:
            return ()
        path = self._folder / f"{role}.toml"
        table = f'role = "{role}"\nmode = "iroh"\n[iroh.transport]\n{self._settings}\n'
        path.write_text(table)
        return ("-c", str(path))

    def __enter__(self) -> "OurServer":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _which(program: str) -> str:
    found = shutil.which(program, path=PATH)
    if found is None:
        raise BenchError(f"{program} is not installed")
    return found


LINES: dict[str, Callable[[int], AbstractContextManager[Line]]] = {
    "direct TCP": direct,
    "ssh -L": openssh,
    "asyncssh": asyncssh,
    "stock aioquic": stock_aioquic,
    "tunnel-rs": ours,
    "tunnel-rs-ice": ice,
    "tunnel-rs, newreno": partial(ours, settings='congestion_controller = "newreno"'),
}
