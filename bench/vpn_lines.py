"""The VPNs that are compared, each between two network namespaces that one veth pair joins.

To add one, write a context manager like these and put it into `LINES`.
"""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from bench.lines import OFFLINE, core, listening
from bench.processes import PATH, BenchError, Program, printed, python
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

CLIENT, SERVER = 0, 1
NEAR = ("192.0.2.1", "192.0.2.2")
"""Addresses on the veth pair, by side."""

INSIDE = ("10.99.0.2", "10.99.0.1")
"""Addresses inside the VPNs whose addresses we choose."""

PORT = 5201
"""iperf3's, on every address of the server's side."""

_VPN = ("-c", "from tunnel_rs.cli.vpn import main; main()")


class SkippedError(Exception):
    """A line that cannot be measured on this machine; the message says why."""


@dataclass(frozen=True)
class Line:
    """A way from the client's side to the server's that is up."""

    address: str
    """Where iperf3 finds its server."""
    port: int = PORT
    client: tuple[int, ...] = ()
    """Processes on the client's side."""
    server: tuple[int, ...] = ()
    programs: tuple[Program, ...] = field(default=(), repr=False)
    carries_ip: bool = True
    """Whether ping and UDP go through it too."""


class Places:
    """The two namespaces. Needs root."""

    def __init__(self, tools: Path | None) -> None:
        """`tools`: a folder with programs that are not on the PATH."""
        self._path = PATH if tools is None else f"{tools}{os.pathsep}{PATH}"
        self._stack = ExitStack()
        self._names = [f"bench-vpn-{os.getpid()}-{side}" for side in "cs"]
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        try:
            self._make()
        except BaseException:
            self._stack.close()
            raise

    def _make(self) -> None:
        for name in self._names:
            command("ip", "netns", "add", name)
            self._stack.callback(command, "ip", "netns", "del", name)
        one, other = self._names
        pair = ("type", "veth", "peer", "bench", "netns", other)
        command("ip", "link", "add", "bench", "netns", one, *pair)
        for side, name in enumerate(self._names):
            for words in ("addr add {}/24 dev bench", "link set bench up", "link set lo up"):
                command("ip", "-n", name, *words.format(NEAR[side]).split())

    def __enter__(self) -> "Places":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def inside(self, side: int, *words: str | Path) -> list[str | Path]:
        """A command that runs `words` on one side."""
        return ["ip", "netns", "exec", self._names[side], *words]

    def ip(self, side: int, words: str) -> None:
        command("ip", "-n", self._names[side], *words.split())

    def start(self, side: int, *words: str | Path) -> Program:
        """A program held to its side's processor. Its runtime folder is its own."""
        runtime = self._folder / f"run-{side}"
        runtime.mkdir(exist_ok=True)
        words = ("env", f"XDG_RUNTIME_DIR={runtime}", *words)
        return Program(self.inside(side, *words), core=core(side))

    def new_folder(self) -> Path:
        """An empty folder that goes with the namespaces."""
        return Path(tempfile.mkdtemp(dir=self._folder))

    def tool(self, name: str, source: str) -> str:
        found = shutil.which(name, path=self._path)
        if found is None:
            raise SkippedError(f"no program {name} here; `go install {source}` makes it")
        return found


def command(*words: str | Path) -> str:
    """What a short command prints. Raises BenchError."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"{' '.join(map(str, words))}: {done.stderr.strip()}")
    return done.stdout


@contextmanager
def direct(places: Places) -> Iterator[Line]:
    """No tunnel: what the machine and iperf3 can do."""
    yield Line(NEAR[SERVER])


@contextmanager
def forwarding(places: Places) -> Iterator[Line]:
    """Our TCP forwarding, between the same two namespaces."""
    folder = places.new_folder()
    key, token = folder / "server.key", folder / "token.txt"
    printed("-m", "tunnel_rs", "generate-server-key", "-o", key)
    token.write_text(printed("-m", "tunnel_rs", "generate-token"))
    bind = f"{NEAR[SERVER]}:4433"
    serve = ("server", "--json", *OFFLINE, "--bind", bind, "--allowed-tcp", "127.0.0.0/8")
    identity = ("--secret-file", key, "--auth-tokens-file", token)
    with places.start(SERVER, *python("-m", "tunnel_rs", *serve, *identity)) as server:
        server.wait_for('"ready"')
        where = ("-n", _endpoint_id(key), "--peer-addr", bind, "--auth-token-file", token)
        what = ("-s", f"tcp://127.0.0.1:{PORT}", "-t", "127.0.0.1:0")
        arguments = ("client", "--json", *OFFLINE, *where, *what)
        with places.start(CLIENT, *python("-m", "tunnel_rs", *arguments)) as client:
            port = listening(client)
            client.wait_for('"tunnel_up"')
            yield Line(
                "127.0.0.1",
                port,
                (client.pid,),
                (server.pid,),
                (client, server),
                carries_ip=False,
            )


@contextmanager
def ours(places: Places, *, offload: bool) -> Iterator[Line]:
    """`tunnel-rs-vpn`. `offload`: with super-packets."""
    folder = places.new_folder()
    key, token = folder / "server.key", folder / "token.txt"
    printed(*_VPN, "generate-server-key", "-o", key)
    token.write_text(printed(*_VPN, "generate-token"))
    bind = f"{NEAR[SERVER]}:4434"
    table = f'mode = "iroh"\n[iroh]\noffload = {str(offload).lower()}\ndns_server = "none"\n'
    for role in ("server", "client"):
        (folder / f"{role}.toml").write_text(f'role = "vpn{role}"\n{table}')
    serve = ("server", "--json", "-c", folder / "server.toml", "--bind", bind)
    network = ("--network", "10.98.0.0/24", "--secret-file", key, "--auth-tokens-file", token)
    with places.start(SERVER, *python(*_VPN, *serve, *network)) as server:
        server.wait_for('"ready"')
        where = ("-n", _endpoint_id(key), "--peer-addr", bind, "--auth-token-file", token)
        arguments = ("client", "--json", "-c", folder / "client.toml", *where)
        with places.start(CLIENT, *python(*_VPN, *arguments)) as client:
            client.wait_for('"vpn_up"')
            yield Line(
                "10.98.0.1",
                client=(client.pid,),
                server=(server.pid,),
                programs=(client, server),
            )


def _endpoint_id(key: Path) -> str:
    return printed("-m", "tunnel_rs", "show-server-id", "--secret-file", key).split()[-1]


@contextmanager
def wireguard_go(places: Places) -> Iterator[Line]:
    program = places.tool("wireguard", "golang.zx2c4.com/wireguard@latest")
    keys = [X25519PrivateKey.generate() for _ in NEAR]
    names = [f"wg{os.getpid()}{side}" for side in "cs"]
    with ExitStack() as stack:
        pids: list[tuple[int, ...]] = []
        for side, name in enumerate(names):
            started = stack.enter_context(places.start(side, program, "-f", name))
            pids.append((started.pid,))
            control = Path(f"/var/run/wireguard/{name}.sock")
            _until(control.exists, f"wireguard-go made no {control}")
            other = 1 - side
            _tell_wireguard(
                control,
                f"private_key={keys[side].private_bytes_raw().hex()}\nlisten_port=51820\n"
                f"public_key={keys[other].public_key().public_bytes_raw().hex()}\n"
                f"endpoint={NEAR[other]}:51820\nallowed_ip={INSIDE[other]}/32\n",
            )
            places.ip(side, f"addr add {INSIDE[side]}/24 dev {name}")
            places.ip(side, f"link set {name} mtu 1420 up")
        yield Line(INSIDE[SERVER], client=pids[CLIENT], server=pids[SERVER])


def _tell_wireguard(control: Path, settings: str) -> None:
    """WireGuard's cross-platform interface: lines of key=value, answered with errno=0."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(control))
        sock.sendall(f"set=1\n{settings}\n".encode())
        answer = sock.recv(4096)
    if b"errno=0\n" not in answer:
        raise BenchError(f"wireguard-go does not take its settings: {answer.decode().strip()}")


@contextmanager
def nebula(places: Places) -> Iterator[Line]:
    source = "github.com/slackhq/nebula/cmd/...@latest"
    program, signer = places.tool("nebula", source), places.tool("nebula-cert", source)
    folder = places.new_folder()
    ca = ("-ca-crt", folder / "ca.crt", "-ca-key", folder / "ca.key")
    command(
        *(signer, "ca", "-name", "bench"),
        *("-out-crt", folder / "ca.crt", "-out-key", folder / "ca.key"),
    )
    with ExitStack() as stack:
        started = []
        for side in (SERVER, CLIENT):
            out = folder / f"nebula-{side}"
            command(
                *(signer, "sign", *ca, "-name", f"side-{side}"),
                *("-ip" if _is_old(signer) else "-networks", f"{INSIDE[side]}/24"),
                *("-out-crt", out.with_suffix(".crt"), "-out-key", out.with_suffix(".key")),
            )
            out.with_suffix(".yml").write_text(_nebula_settings(folder, side))
            line = (program, "-config", out.with_suffix(".yml"))
            started.append(stack.enter_context(places.start(side, *line)))
        server, client = started
        ping = places.inside(CLIENT, "ping", "-c", "1", "-W", "1", INSIDE[SERVER])
        _until(lambda: not subprocess.run(ping, capture_output=True).returncode, "nebula is not up")
        yield Line(
            INSIDE[SERVER],
            client=(client.pid,),
            server=(server.pid,),
            programs=(client, server),
        )


def _is_old(signer: str) -> bool:
    usage = subprocess.run([signer, "sign", "-h"], capture_output=True, text=True, check=False)
    return "-networks" not in usage.stdout + usage.stderr


def _nebula_settings(folder: Path, side: int) -> str:
    lighthouse = "{am_lighthouse: true}"
    if side == CLIENT:
        lighthouse = f'{{hosts: ["{INSIDE[SERVER]}"]}}'
    return (
        f"pki: {{ca: {folder}/ca.crt, cert: {folder}/nebula-{side}.crt,"
        f" key: {folder}/nebula-{side}.key}}\n"
        f'static_host_map: {{"{INSIDE[SERVER]}": ["{NEAR[SERVER]}:4242"]}}\n'
        f"lighthouse: {lighthouse}\n"
        f"listen: {{host: 0.0.0.0, port: 4242}}\n"
        "tun: {dev: nebula-bench, mtu: 1400}\n"
        "firewall: {outbound: [{port: any, proto: any, host: any}],"
        " inbound: [{port: any, proto: any, host: any}]}\n"
    )


def _until(holds: Callable[[], bool], otherwise: str) -> None:
    """Other processes are waited for by looking; there is nothing else."""
    deadline = time.monotonic() + 10
    while not holds():
        if time.monotonic() > deadline:
            raise BenchError(otherwise)
        time.sleep(0.02)


LINES: dict[str, Callable[[Places], AbstractContextManager[Line]]] = {
    "direct": direct,
    "tunnel-rs, TCP forwarding": forwarding,
    "tunnel-rs-vpn": partial(ours, offload=True),
    "tunnel-rs-vpn, no super-packets": partial(ours, offload=False),
    "wireguard-go": wireguard_go,
    "nebula": nebula,
}
