"""Two hosts behind NATs of any kind and a public network between, made of network namespaces.

    host A (10.81.1.2) - NAT A (198.51.100.21) - public - NAT B (198.51.100.22) - host B (10.81.2.2)

The public network has a STUN and TURN server (coturn) at 198.51.100.10, user `test`, password
`secret`, and a Nostr relay. Needs root, iproute2, nftables and coturn. What the rules are for is in
spec `ice.md` section 4: routers drop what nobody asked for, and the relay has a default route.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from tests.support.ice_scene import CLIENT_KEY, SERVER_KEY

ROOT = Path(__file__).resolve().parents[2]
STUN = "198.51.100.10:3478"
STUN6 = "[2001:db8::10]:3478"
TURN_UDP = f"turn:test:secret@{STUN}"
TURN_TCP = f"{TURN_UDP}?transport=tcp"
ECHO_PORT = 7777
RELAY_PORT = 6969
RELAY = f"ws://198.51.100.10:{RELAY_PORT}/"

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
        self._ports: dict[str, str] = {}
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
        self._in("pub", "ip addr add 2001:db8::10/64 dev br0 nodad")
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
        self._routes6(number, f"nat{side}")

    def _routes6(self, number: int, nat: str) -> None:
        """IPv6 is routed, not translated; hosts get their addresses in `ipv6_only`."""
        other = 3 - number
        self._in(nat, f"ip addr add 2001:db8::2{number}/64 dev wan nodad")
        self._in(nat, f"ip addr add 2001:db8:{number}::1/64 dev lan nodad")
        self._in(nat, f"ip route add 2001:db8:{other}::/64 via 2001:db8::2{other}")
        self._in("pub", f"ip route add 2001:db8:{number}::/64 via 2001:db8::2{number}")
        self._in(nat, "sysctl -qw net.ipv6.conf.all.forwarding=1")

    @contextmanager
    def ipv6_only(self) -> Iterator[None]:
        """While entered, both hosts have no IPv4, and IPv6 behind firewalls that let in what was
        asked for."""
        for number, side in enumerate("AB", 1):
            self.set_nat(side, Nat.RESTRICTED)
            self._in(f"host{side}", "ip -4 addr flush dev eth0")
            self._in(f"host{side}", f"ip addr add 2001:db8:{number}::2/64 dev eth0 nodad")
            self._in(f"host{side}", f"ip route add default via 2001:db8:{number}::1")
        try:
            yield
        finally:
            for number, side in enumerate("AB", 1):
                self._in(f"host{side}", "ip -6 addr flush dev eth0 scope global")
                self._in(f"host{side}", f"ip addr add 10.81.{number}.2/24 dev eth0")
                self._in(f"host{side}", f"ip route add default via 10.81.{number}.1")

    @contextmanager
    def more_interfaces(self) -> Iterator[None]:
        """While entered, both hosts have a network that leads nowhere and one for containers, whose
        address is the same on both."""
        for number, side in enumerate("AB", 1):
            host = f"host{side}"
            self._in(host, "ip link add nowhere type veth peer name void")
            self._in(host, "ip link set void up")
            self._in(host, f"ip addr add 10.99.0.{number}/24 dev nowhere")
            self._in(host, "ip link set nowhere up")
            self._in(host, "ip link add docker0 type bridge")
            self._in(host, "ip addr add 172.17.0.1/16 dev docker0")
            self._in(host, "ip link set docker0 up")
        try:
            yield
        finally:
            for side in "AB":
                for name in ("nowhere", "docker0"):
                    self._in(f"host{side}", f"ip link del {name}")

    @contextmanager
    def cut(self) -> Iterator[None]:
        """While entered, nothing gets through the router of B."""
        rules = """
        table inet cut {
          chain c_cut { type filter hook forward priority -10; policy drop;
          }
        }"""
        self._in("natB", "nft -f -", rules)
        try:
            yield
        finally:
            self._in("natB", "nft delete table inet cut")

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
        self.processes.callback(end, process)
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
                "-L",
                "2001:db8::10",
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
        relay = [sys.executable, "-m", "tests.support.nostr_relay", "198.51.100.10"]
        self.start("pub", [*relay, str(RELAY_PORT)])

    def set_nat(self, side: str, kind: Nat) -> None:
        """Replace the rules of one router."""
        self._kinds[side] = kind
        number = "AB".index(side) + 1
        if kind is Nat.OPEN:
            self._in(f"nat{side}", "nft flush ruleset")
            return
        mapping = "masquerade fully-random" if kind is Nat.SYMMETRIC else "masquerade"
        if kind is Nat.RESTRICTED and side in self._ports:
            mapping = f"meta l4proto {{ tcp, udp }} masquerade to :{self._ports[side]}"
        forward = f'iifname "wan" meta l4proto udp dnat to 10.81.{number}.2'
        # All at once: a flow that passes between two sets of rules would stay without a mapping.
        rules = f"""
        flush ruleset
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
        }}
        table ip6 fw6 {{
          chain c_fwd {{ type filter hook forward priority 0; policy drop;
            {"meta l4proto udp drop" if kind is Nat.NO_UDP else ""}
            iifname "lan" accept
            ct state established,related accept
          }}
        }}"""
        self._in(f"nat{side}", "nft -f -", rules)

    def use_ports(self, side: str, first: int) -> None:
        """From now on a port-restricted router maps to 1000 ports from this one on. Else it keeps
        the host's, where it can."""
        self._ports[side] = f"{first}-{first + 999}"
        self.set_nat(side, self._kinds[side])

    def keep_ports(self) -> None:
        """End `use_ports`, with the next `set_nat` of each side."""
        self._ports.clear()

    def machine(self, side: str) -> str:
        """Where a program of that side runs: the router itself has the public address."""
        return f"nat{side}" if self._kinds[side] is Nat.OPEN else f"host{side}"

    def tunnel(
        self,
        *,
        client: Sequence[str] = (),
        server: Sequence[str] = (),
        stun: str = STUN,
        timeout: float = 10.0,
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
            stun,
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
            end(running)
            end(serving)
        text = err.decode()
        found = re.search(r"is up by (.*) after ([0-9.]+) s", text)
        seconds = float(found[2]) if found else time.monotonic() - began
        return Outcome(out == blob, found[1] if found else "", seconds, text)

    def with_original_client(self, mode: str, timeout: float = 30.0) -> bool:
        """Whether A, an emulated original, reaches the echo service of B, our server."""
        self._count += 1
        serving = self.serve(mode)
        argv = self._original(mode, "client", "A")
        running = self.start(self.machine("A"), argv, stdout=subprocess.PIPE)
        try:
            return running.communicate(timeout=timeout)[0] == b"ok\n"
        except subprocess.TimeoutExpired:
            return False
        finally:
            end(running)
            end(serving)

    def with_original_server(self, mode: str, timeout: float = 30.0) -> bool:
        """Whether A, our client, gets its bytes back from B, an emulated original."""
        self._count += 1
        original = self._original(mode, "server", "B")
        serving = self.start(self.machine("B"), original, stdout=subprocess.PIPE)
        assert serving.stdout is not None and serving.stdout.readline() == b"ready\n"
        running = self.start(
            self.machine("A"),
            [
                *_OURS,
                "client",
                mode,
                "--stdio",
                "-s",
                "tcp://127.0.0.1:7",
                *self._options(mode, "A"),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            return running.communicate(b"hello", timeout=timeout)[0] == b"hello"
        except subprocess.TimeoutExpired:
            return False
        finally:
            end(running)
            end(serving)

    def serve(self, mode: str) -> "subprocess.Popen[bytes]":
        """Our server on B, for the echo service; in nostr mode once it listens on the relay."""
        server = [*_OURS, "server", mode, "--allowed-tcp", "127.0.0.0/8"]
        options = self._options(mode, "B")
        serving = self.start(self.machine("B"), [*server, *options], stderr=subprocess.PIPE)
        assert serving.stderr is not None
        ready = b"Waiting for clients" if mode == "nostr" else b"waiting for the offer"
        while ready not in (line := serving.stderr.readline()):
            assert line, "our server has ended"
        return serving

    def nostr_client(self, *options: str) -> "subprocess.Popen[bytes]":
        """Our client on A, which tells what happens as JSON on stdout."""
        client = [*_OURS, "client", "nostr", "--json", "-s", f"tcp://127.0.0.1:{ECHO_PORT}"]
        return self.start(
            self.machine("A"),
            [*client, *self._options("nostr", "A"), *options],
            stdout=subprocess.PIPE,
        )

    def _options(self, mode: str, side: str) -> list[str]:
        """What a session of this mode takes on our side."""
        common = ["--connect-timeout", "20", "--stun-server", STUN]
        if mode == "manual":
            files = [f"offer{self._count}", f"answer{self._count}"]
            return ["--offer-file", files[0], "--answer-file", files[1], *common]
        own, other = (CLIENT_KEY, SERVER_KEY) if side == "A" else (SERVER_KEY, CLIENT_KEY)
        keys = ["--nsec", own.nsec, "--peer-npub", other.public_key.npub]
        # Soon in plain text: the original does not understand anything else.
        soon = ["--republish-interval", "0.5"] if side == "A" else []
        return [*keys, "--relay", RELAY, *soon, *common]

    def _original(self, mode: str, role: str, side: str) -> list[str]:
        number = "AB".index(side) + 1
        public = self._kinds[side] is Nat.OPEN
        host = f"198.51.100.2{number}" if public else f"10.81.{number}.2"
        carriers = [RELAY]
        if mode == "manual":
            carriers = [f"offer{self._count}", f"answer{self._count}"]
        module = "tests.netns.original_peer"
        return [sys.executable, "-m", module, role, host, STUN, mode, *carriers]

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


def end(process: "subprocess.Popen[bytes]") -> None:
    """Stop a program, and close the pipes to it."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(3)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()


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
