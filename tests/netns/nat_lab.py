"""Two hosts behind NATs of any kind and a public network between, made of network namespaces.

    host A (10.81.1.2) - NAT A (198.51.100.21) - public - NAT B (198.51.100.22) - host B (10.81.2.2)

The public network has a STUN and TURN server (coturn) at 198.51.100.10, user `test`, password
`secret`. Needs root, iproute2, nftables and coturn. What the rules are for is in spec `ice.md`
section 4: routers drop what nobody asked for, and the relay has a default route.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STUN = "198.51.100.10:3478"
TURN_UDP = f"turn:test:secret@{STUN}"
TURN_TCP = f"{TURN_UDP}?transport=tcp"
ECHO_PORT = 7777

_OURS = (sys.executable, "-c", "from tunnel_rs.cli.ice import main; main()")
ECHO = """
import socketserver
class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(65536):
            self.request.sendall(data)
socketserver.ThreadingTCPServer.daemon_threads = True
socketserver.ThreadingTCPServer(("127.0.0.1", PORT), Echo).serve_forever()
""".replace("PORT", str(ECHO_PORT))


class Nat(StrEnum):
    """What stands between a host and the public network."""

    OPEN = "open"
    FULL_CONE = "full cone"
    RESTRICTED = "port-restricted"
    SYMMETRIC = "symmetric"
    NO_UDP = "UDP blocked"


def missing() -> str:
    """Why there can be no lab here; empty when there can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "needs root on Linux"
    absent = [tool for tool in ("ip", "nft", "turnserver") if shutil.which(tool) is None]
    if absent:
        return f"needs {', '.join(absent)}"
    probe = subprocess.run(["ip", "netns", "list"], capture_output=True, check=False)
    return "" if probe.returncode == 0 else "needs network namespaces"


@dataclass
class Outcome:
    """How one tunnel went."""

    connected: bool
    way: str
    seconds: float
    output: str

    @property
    def kind(self) -> str:
        """`direct`, `through NAT`, `relayed`, or `fails`."""
        return self.way.partition(",")[0] if self.connected else "fails"


class NatLab:
    """See `nat_lab`."""

    def __init__(self, prefix: str, directory: Path) -> None:
        self._prefix = prefix
        self._directory = directory
        self._kinds = {"A": Nat.OPEN, "B": Nat.OPEN}
        self._count = 0
        self.processes = ExitStack()

    def build(self) -> None:
        for name in ("pub", "natA", "natB", "hostA", "hostB"):
            self._ip(f"netns add {self.namespace(name)}")
            self._in(name, "ip link set lo up")
        self._in("pub", "ip link add br0 type bridge")
        self._in("pub", "ip link set br0 up")
        self._in("pub", "ip addr add 198.51.100.10/24 dev br0")
        self._in("pub", "ip addr add 198.51.100.11/24 dev br0")
        self._in("pub", "ip route add default dev br0")
        for number, side in enumerate("AB", 1):
            self._side(number, side)

    def _side(self, number: int, side: str) -> None:
        nat, host, public = (
            self.namespace(f"nat{side}"),
            self.namespace(f"host{side}"),
            self.namespace("pub"),
        )
        self._ip(f"link add wan netns {nat} type veth peer name to{side} netns {public}")
        self._in("pub", f"ip link set to{side} master br0 up")
        self._in(f"nat{side}", "ip link set wan up")
        self._in(f"nat{side}", f"ip addr add 198.51.100.2{number}/24 dev wan")
        self._ip(f"link add lan netns {nat} type veth peer name eth0 netns {host}")
        self._in(f"nat{side}", "ip link set lan up")
        self._in(f"nat{side}", f"ip addr add 10.81.{number}.1/24 dev lan")
        self._in(f"host{side}", "ip link set eth0 up")
        self._in(f"host{side}", f"ip addr add 10.81.{number}.2/24 dev eth0")
        self._in(f"host{side}", f"ip route add default via 10.81.{number}.1")
        self._in(f"nat{side}", "sysctl -qw net.ipv4.ip_forward=1")

    def start(
        self, where: str, argv: Sequence[str], **options: object
    ) -> "subprocess.Popen[bytes]":
        """Run a program in a namespace; it is ended with the lab."""
        environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
        process: subprocess.Popen[bytes] = subprocess.Popen(
            ["ip", "netns", "exec", self.namespace(where), *argv],
            env=environment,
            cwd=self._directory,
            **{
                "stdin": subprocess.DEVNULL,
                "stdout": subprocess.DEVNULL,
                "stderr": subprocess.DEVNULL,
                **options,
            },  # type: ignore[call-overload]
        )
        self.processes.callback(_end, process)
        return process

    def start_services(self) -> None:
        """The TURN server, and an echo service on both machines that may serve B."""
        self.start(
            "pub",
            [
                "turnserver",
                "-n",
                "--no-cli",
                "--no-tls",
                "--no-dtls",
                "-L",
                "198.51.100.10",
                "-L",
                "198.51.100.11",
                "-E",
                "198.51.100.10",
                "--lt-cred-mech",
                "-u",
                "test:secret",
                "-r",
                "lab",
                "--min-port",
                "50000",
                "--max-port",
                "50999",
                "--pidfile",
                "turn.pid",
                "--userdb",
                "turn.db",
                "-l",
                "stdout",
            ],
        )
        for where in ("hostB", "natB"):
            self.start(where, [sys.executable, "-c", ECHO])

    def set_nat(self, side: str, kind: Nat) -> None:
        """Replace the rules of one router."""
        self._kinds[side] = kind
        number = "AB".index(side) + 1
        self._in(f"nat{side}", "nft flush ruleset")
        if kind is Nat.OPEN:
            return
        mapping = "masquerade fully-random" if kind is Nat.SYMMETRIC else "masquerade"
        forward = f'iifname "wan" meta l4proto udp dnat to 10.81.{number}.2'
        rules = f"""
        table ip nat {{
          chain c_pre {{ type nat hook prerouting priority dstnat;
            {forward if kind is Nat.FULL_CONE else ""}
          }}
          chain c_post {{ type nat hook postrouting priority srcnat; oifname "wan" {mapping}
          }}
        }}
        table ip fw {{
          chain c_fwd {{ type filter hook forward priority 0; policy drop;
            {"meta l4proto udp drop" if kind is Nat.NO_UDP else ""}
            iifname "lan" accept
            ct state established,related accept
            ct status dnat accept
          }}
          chain c_in {{ type filter hook input priority 0; policy accept;
            iifname "wan" meta l4proto udp ct state new drop
          }}
        }}"""
        self._in(f"nat{side}", "nft -f -", rules)

    def machine(self, side: str) -> str:
        """Where a program of that side runs: the router itself has the public address."""
        return f"nat{side}" if self._kinds[side] is Nat.OPEN else f"host{side}"

    def tunnel(
        self, *, client: Sequence[str] = (), server: Sequence[str] = (), timeout: float = 10.0
    ) -> Outcome:
        """Connect A (client) to the echo service of B (server) through the program, in manual
        mode, with additional options for each. Data goes through and back."""
        self._count += 1
        offer, answer = f"offer{self._count}", f"answer{self._count}"
        common = [
            "--offer-file",
            offer,
            "--answer-file",
            answer,
            "--connect-timeout",
            str(timeout),
            "--stun-server",
            STUN,
        ]
        serving = self.start(
            self.machine("B"),
            [*_OURS, "server", "manual", "--allowed-tcp", "127.0.0.0/8", *common, *server],
        )
        running = self.start(
            self.machine("A"),
            [
                *_OURS,
                "client",
                "manual",
                "--stdio",
                "-s",
                f"tcp://127.0.0.1:{ECHO_PORT}",
                *common,
                *client,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        blob = os.urandom(100_000)
        began = time.monotonic()
        try:
            out, err = running.communicate(blob, timeout=timeout + 30)
        except subprocess.TimeoutExpired:
            running.kill()
            out, err = running.communicate()
        finally:
            _end(running)
            _end(serving)
        text = err.decode()
        found = re.search(r"is up by (.*) after ([0-9.]+) s", text)
        seconds = float(found[2]) if found else time.monotonic() - began
        return Outcome(out == blob, found[1] if found else "", seconds, text)

    def with_original_client(self, timeout: float = 30.0) -> bool:
        """Whether A, an emulated original, reaches the echo service of B, our server."""
        offer, answer, ours = self._session()
        self.start(
            self.machine("B"),
            [*_OURS, "server", "manual", "--allowed-tcp", "127.0.0.0/8", *ours],
        )
        argv = self._original("client", "A", offer, answer)
        running = self.start(self.machine("A"), argv, stdout=subprocess.PIPE)
        try:
            return running.communicate(timeout=timeout)[0] == b"ok\n"
        except subprocess.TimeoutExpired:
            return False

    def with_original_server(self, timeout: float = 30.0) -> bool:
        """Whether A, our client, gets its bytes back from B, an emulated original."""
        offer, answer, ours = self._session()
        self.start(self.machine("B"), self._original("server", "B", offer, answer))
        running = self.start(
            self.machine("A"),
            [*_OURS, "client", "manual", "--stdio", "-s", "tcp://127.0.0.1:7", *ours],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            return running.communicate(b"hello", timeout=timeout)[0] == b"hello"
        except subprocess.TimeoutExpired:
            return False
        finally:
            _end(running)

    def _session(self) -> tuple[str, str, list[str]]:
        self._count += 1
        offer, answer = f"offer{self._count}", f"answer{self._count}"
        files = ["--offer-file", offer, "--answer-file", answer]
        return offer, answer, [*files, "--connect-timeout", "20", "--stun-server", STUN]

    def _original(self, role: str, side: str, offer: str, answer: str) -> list[str]:
        number = "AB".index(side) + 1
        public = self._kinds[side] is Nat.OPEN
        host = f"198.51.100.2{number}" if public else f"10.81.{number}.2"
        module = "tests.netns.original_peer"
        return [sys.executable, "-m", module, role, host, offer, answer, STUN]

    def namespace(self, name: str) -> str:
        """Its name as the system knows it."""
        return f"{self._prefix}{name}"

    def _ip(self, words: str) -> None:
        subprocess.run(["ip", *words.split()], check=True, capture_output=True)

    def run(self, name: str, command: str | Sequence[str], text: str | None = None) -> str:
        """What a command run in a namespace to its end says."""
        words = command.split() if isinstance(command, str) else command
        argv = ["ip", "netns", "exec", self.namespace(name), *words]
        stdin = text.encode() if text else None
        return subprocess.run(argv, check=True, capture_output=True, input=stdin).stdout.decode()

    def _in(self, name: str, command: str, text: str | None = None) -> None:
        self.run(name, command, text)

    def tear_down(self) -> None:
        self.processes.close()
        for name in ("pub", "natA", "natB", "hostA", "hostB"):
            subprocess.run(
                ["ip", "netns", "del", self.namespace(name)], capture_output=True, check=False
            )


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(3)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def nat_lab() -> Iterator[NatLab]:
    """The lab, up and with its services; gone afterwards."""
    with tempfile.TemporaryDirectory() as directory:
        lab = NatLab(f"ice{os.getpid() % 100_000}", Path(directory))
        try:
            lab.build()
            lab.start_services()
            yield lab
        finally:
            lab.tear_down()
