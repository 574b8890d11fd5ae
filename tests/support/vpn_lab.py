"""Network namespaces with the real programs in them (needs root, Linux, iproute2).

    clients (192.0.2.x) ---- server (192.0.2.1, 198.51.100.1) ---- far (198.51.100.7)

Clients have a default route by the server's machine; packets that came through the VPN and were
masqueraded arrive at the far host from 198.51.100.1, others from 192.0.2.x.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import pytest

from tunnel_rs.config.keyfile import write_secret_key
from tunnel_rs.proto.raw_keys import Identity
from tunnel_rs.proto.tokens import generate_token
from tunnel_rs.values import Secret

SOURCES = Path(__file__).resolve().parents[2] / "src"
PROGRAM = [sys.executable, "-c", "from tunnel_rs.cli.vpn import main; main()"]
SELF_HOSTED = [sys.executable, "-c", "from tunnel_rs.cli.main import main; main()"]
DIRECT = ("--relay-url", "none", "--dns-server", "none")
TIMEOUT = 60.0

SERVER_ADDRESS, FAR, FAR_SIDE = "192.0.2.1", "198.51.100.7", "198.51.100.1"
SERVER_ADDRESS6 = "2001:db8:1::1"
AT, AT6 = f"{SERVER_ADDRESS}:4433", f"[{SERVER_ADDRESS6}]:4433"
"""Where the server listens."""


def new_token() -> str:
    return generate_token(os.urandom).reveal()


def what_is_missing() -> str:
    """What these tests cannot do without and this machine lacks; empty: nothing."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "needs Linux and root"
    missing = [tool for tool in ("ip", "nft", "ping", "iperf3") if shutil.which(tool) is None]
    if missing:
        return f"needs {' and '.join(missing)}"
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR))
    except OSError as error:
        return f"no TUN device can be made here: /dev/net/tun: {error.strerror}"
    return ""


needs_lab = pytest.mark.skipif(bool(what_is_missing()), reason=what_is_missing() or "complete")


def run(*command: str, check: bool = True, timeout: float = TIMEOUT) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout + done.stderr


class Program:
    """A running `tunnel-rs-vpn`, and the events it reports."""

    def __init__(self, process: "subprocess.Popen[str]", log: Path) -> None:
        self.process = process
        self._log = log

    def events(self, name: str) -> list[dict[str, Any]]:
        lines = [line for line in self._log.read_text().splitlines() if line.startswith("{")]
        return [event for event in map(json.loads, lines) if event["event"] == name]

    def wait(self, name: str, count: int = 1) -> dict[str, Any]:
        """The event when it has come `count` times."""

        def come() -> bool:
            assert self.process.poll() is None, f"ended with {self.process.poll()}: {self.text}"
            return len(self.events(name)) >= count

        eventually(come, lambda: f"no {name}: {self.text}")
        return self.events(name)[count - 1]

    @property
    def text(self) -> str:
        return self._log.read_text()

    def stop(self, signal: int = 15) -> int:
        self.process.send_signal(signal)
        return self.process.wait(TIMEOUT)


def eventually(holds: Callable[[], bool], otherwise: Callable[[], str]) -> None:
    """Other processes are waited for by looking; there is nothing else."""
    deadline = time.monotonic() + TIMEOUT
    while not holds():
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.05)


class Lab:
    """See the module. Make one with `vpn_lab`."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self._stack = stack
        self._folder = folder
        self._name = f"vpn-{uuid4().hex[:6]}"
        self._programs = 0
        self._name_server = "192.0.2.53"
        # Not in the test's folder: names of Unix sockets are short.
        self._runtime = Path(stack.enter_context(TemporaryDirectory(prefix="vpn-lab-")))
        self.clients: list[str] = []
        self.key, self.tokens = folder / "server.key", folder / "tokens.txt"
        self.server = self.namespace("s")
        self.far = self.namespace("f")
        self._wire(self.server, self.far, (FAR_SIDE, FAR), ("2001:db8:7::1", "2001:db8:7::7"))
        run("ip", "-n", self.server, "addr", "add", f"{SERVER_ADDRESS}/24", "dev", "lo")
        run("ip", "-n", self.server, "addr", "add", f"{SERVER_ADDRESS6}/128", "dev", "lo")
        run("ip", "-n", self.far, "route", "add", "192.0.2.0/24", "via", FAR_SIDE)
        seed = Secret(os.urandom(32))
        write_secret_key(self.key, seed, force=False)
        self.endpoint_id = str(Identity(seed).endpoint_id)
        self.tokens.write_text("".join(f"{new_token()}\n" for _ in range(12)))

    def namespace(self, suffix: str) -> str:
        name = f"{self._name}{suffix}"
        run("ip", "netns", "add", name)
        self._stack.callback(run, "ip", "netns", "del", name, check=False)
        run("ip", "-n", name, "link", "set", "lo", "up")
        return name

    def client(self, *, default_route: bool = True, ipv6: bool = False) -> str:
        """Another client's namespace; `ipv6`: it has an address and a route of that family, too."""
        number = len(self.clients) + 2
        name = self.namespace(f"c{number}")
        self._wire(self.server, name, (f"192.0.2.{number + 100}", f"192.0.2.{number}"))
        run(
            "ip",
            "-n",
            self.server,
            "route",
            "replace",
            f"192.0.2.{number}",
            "dev",
            f"to{name[-6:]}",
        )
        if default_route:
            run("ip", "-n", name, "route", "add", "default", "via", SERVER_ADDRESS)
        if ipv6:
            near, own, device = f"2001:db8:1:{number}::1", f"2001:db8:1:{number}::2", name[-6:]
            for where, address, end in ((self.server, near, device), (name, own, self.server[-6:])):
                place = (f"{address}/64", "dev", f"to{end}", "nodad")
                run("ip", "-n", where, "addr", "add", *place)
            run("ip", "-n", name, "route", "add", "default", "via", near)
        self.clients.append(name)
        return name

    def _wire(self, one: str, other: str, *addresses: tuple[str, str]) -> None:
        ends = (f"to{other[-6:]}", f"to{one[-6:]}")
        run(
            "ip",
            "link",
            "add",
            ends[0],
            "netns",
            one,
            "type",
            "veth",
            "peer",
            ends[1],
            "netns",
            other,
        )
        for pair in addresses:
            for name, device, address in zip((one, other), ends, pair, strict=True):
                length, nodad = ("64", ["nodad"]) if ":" in address else ("24", [])
                run("ip", "-n", name, "addr", "add", f"{address}/{length}", "dev", device, *nodad)
        for name, device in zip((one, other), ends, strict=True):
            run("ip", "-n", name, "link", "set", device, "up")

    # Programs

    def start(
        self,
        namespace: str,
        *arguments: str,
        wrapper: tuple[str, ...] = (),
        program: list[str] = PROGRAM,
        folder: Path | None = None,
    ) -> Program:
        self._programs += 1
        log = self._folder / f"{self._programs}-{namespace}.log"
        environment = self._environment(namespace)
        with log.open("w") as output:
            process = subprocess.Popen(
                ["ip", "netns", "exec", namespace, *self._mounts(namespace), *wrapper]
                + [*program, *arguments],
                env=environment,
                cwd=folder,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
            )
        self._stack.callback(_kill, process)
        return Program(process, log)

    def _environment(self, namespace: str) -> dict[str, str]:
        runtime = self._runtime / namespace
        runtime.mkdir(exist_ok=True)
        return os.environ | {"PYTHONPATH": str(SOURCES), "XDG_RUNTIME_DIR": str(runtime)}

    def resolv_conf(self, namespace: str) -> Path:
        """What the programs in a namespace see as /etc/resolv.conf."""
        return self._etc(namespace) / "resolv.conf"

    def _etc(self, namespace: str) -> Path:
        """What they see as /etc: the machine's, with a resolv.conf (and what programs put beside
        it) of their own."""
        etc = self._folder / f"etc-{namespace}"
        if not etc.exists():
            etc.mkdir()
            for name in os.listdir("/etc"):
                if not name.startswith("resolv.conf"):
                    (etc / name).symlink_to(self._folder / "etc" / name)
            (self._folder / "etc").mkdir(exist_ok=True)
            (etc / "resolv.conf").write_text(f"nameserver {self._name_server}\n")
        return etc

    def _mounts(self, namespace: str) -> list[str]:
        """A command that runs the next one with an /etc of its own."""
        script = 'mount --bind /etc "$1"; mount --bind "$2" /etc; shift 2; exec "$@"'
        return ["sh", "-ec", script, "sh", str(self._folder / "etc"), str(self._etc(namespace))]

    def status(self, namespace: str) -> list[dict[str, Any]]:
        """What `status --json` says."""
        done = subprocess.run(
            [*PROGRAM, "status", "--json"],
            env=self._environment(namespace),
            capture_output=True,
            text=True,
            check=True,
        )
        return [json.loads(line) for line in done.stdout.splitlines()]

    def start_exec(
        self,
        namespace: str,
        *command: str,
        reach: tuple[str, ...] = (*DIRECT, "--peer-addr", AT),
    ) -> Program:
        """`exec` of a command."""
        where = ["-n", self.endpoint_id, *reach]
        return self.start(
            namespace, "exec", *where, "--auth-token-file", str(self._token_file(0)), "--", *command
        )

    def _token_file(self, number: int) -> Path:
        file = self._folder / f"token-{number}"
        file.write_text(self.tokens.read_text().split()[number])
        return file

    def start_infrastructure(self) -> tuple[str, str]:
        """A relay, a discovery server and a resolver that knows them, at the far host, which
        all namespaces ask from now on. Their URLs."""
        relay, discovery = self._folder / "relay.toml", self._folder / "discovery.toml"
        relay.write_text(f'http_bind_addr = "{FAR}:3340"\nenable_metrics = false\n')
        discovery.write_text(
            f'data_dir = "{self._folder}/records"\n[http]\nport = 8080\nbind_addr = "{FAR}"\n'
            f'[dns]\nport = 5353\nbind_addr = "{FAR}"\norigins = ["dns.iroh.link"]\n'
            "[metrics]\ndisabled = true\n"
        )
        for arguments in (("relay", "-c", str(relay)), ("dns-server", "-c", str(discovery))):
            self.start(self.far, *arguments, "--json", program=SELF_HOSTED).wait("ready")
        names = (f"--address=/relay.example/{FAR}", f"--server=/dns.iroh.link/{FAR}#5353")
        self.start_dnsmasq(self.far, FAR, *names)
        self._name_server = FAR
        return "http://relay.example:3340", f"http://{FAR}:8080/pkarr"

    def start_dnsmasq(self, namespace: str, address: str, *names: str) -> None:
        """A resolver that knows `names` (in the words of dnsmasq) and no others."""
        options = ("--no-daemon", "--conf-file=/dev/null", "--no-resolv", "--no-hosts")
        place = (f"--listen-address={address}", "--bind-interfaces", "--user=root", "--pid-file")
        program = self.start(namespace, *options, *place, *names, program=["dnsmasq"])
        eventually(lambda: "started" in program.text, lambda: program.text)

    def start_sshd(self, address: str) -> Path:
        """OpenSSH's server in the server's namespace; the key to log in as root with."""
        host_key, key = self._folder / "host_key", self._folder / "user_key"
        for path in (host_key, key):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path))
        os.makedirs(
            "/run/sshd", mode=0o755, exist_ok=True
        )  # sshd insists; packages may not make it
        config = self._folder / "sshd_config"
        config.write_text(
            f"ListenAddress {address}:22\nHostKey {host_key}\nPidFile none\nUsePAM no\n"
            f"AuthorizedKeysFile {key}.pub\nStrictModes no\nUseDNS no\n"
            "PermitRootLogin prohibit-password\n"
        )
        sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
        program = self.start(self.server, "-D", "-e", "-f", str(config), program=[str(sshd)])
        eventually(lambda: "Server listening" in program.text, lambda: program.text)
        return key

    def start_server(
        self,
        *arguments: str,
        reach: tuple[str, ...] = DIRECT,
        at: str = AT,
        wrapper: tuple[str, ...] = (),
    ) -> Program:
        keys = ["--secret-file", str(self.key), "--auth-tokens-file", str(self.tokens)]
        options = (*keys, "--bind", at, *reach, *arguments)
        server = self.start(self.server, "server", "--json", *options, wrapper=wrapper)
        server.wait("ready")
        return server

    def start_client(
        self,
        namespace: str,
        *arguments: str,
        token: int = 0,
        up: bool = True,
        wrapper: tuple[str, ...] = (),
        reach: tuple[str, ...] = (*DIRECT, "--peer-addr", AT),
    ) -> Program:
        where = ["-n", self.endpoint_id, *reach]
        file = ["--auth-token-file", str(self._token_file(token))]
        client = self.start(
            namespace, "client", "--json", *where, *file, *arguments, wrapper=wrapper
        )
        if up:
            client.wait("vpn_up")
        return client

    @contextmanager
    def cut_off(self, namespace: str, what: str = "") -> Iterator[None]:
        """Nothing (or not `what`, in the words of nft) from this client arrives at the server's
        machine."""
        rules = (
            "table inet cut { chain input { type filter hook prerouting priority -300; "
            f'iifname "to{namespace[-6:]}" {what} drop; }}; }}'
        )
        self.in_(self.server, "nft", rules)
        yield
        self.in_(self.server, "nft", "delete table inet cut")

    def in_(self, namespace: str, *command: str, check: bool = True) -> str:
        return run("ip", "netns", "exec", namespace, *command, check=check)

    def pings(self, namespace: str, address: str, *, seconds: int = 5) -> bool:
        """Whether one of a few pings is answered."""
        command = ["ping", "-c", "1", "-i", "0.2", "-w", str(seconds), address]
        done = subprocess.run(["ip", "netns", "exec", namespace, *command], capture_output=True)
        return done.returncode == 0

    def seen_from(self, namespace: str, address: str = FAR, *, port: int = 7000) -> str:
        """The address that a TCP connection from `namespace` has at the far host."""
        family = "AF_INET6" if ":" in address else "AF_INET"
        listening = subprocess.Popen(
            ["ip", "netns", "exec", self.far, sys.executable, "-c", _SHOW_PEER, family, str(port)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert listening.stdout is not None
        assert listening.stdout.readline() == "listening\n"
        self.in_(namespace, sys.executable, "-c", _CONNECT, address, str(port))
        answer, _ = listening.communicate(timeout=TIMEOUT)
        return answer.strip().removeprefix("::ffff:")


_SHOW_PEER = """
import socket, sys
listener = socket.socket(getattr(socket, sys.argv[1]))
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(("", int(sys.argv[2])))
listener.listen()
listener.settimeout(10)
print("listening", flush=True)
print(listener.accept()[1][0])
"""
_CONNECT = """
import socket, sys
socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=8)
"""


def _kill(process: "subprocess.Popen[str]") -> None:
    if process.poll() is None:
        process.kill()
    process.wait()


@contextmanager
def vpn_lab(folder: Path) -> Iterator[Lab]:
    with ExitStack() as stack:
        yield Lab(stack, folder)
