"""`tunnel-rs` through the NAT lab: a relay of our own in the public network, a client at A, and a
server at B before an echo service.

What a run is about is how long it takes until data goes directly, and that it goes on meanwhile.
"""

import base64
import json
import os
import queue
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.netns.nat_lab import ECHO, ECHO_PORT, Nat, NatLab, missing
from tests.support.relay_peers import write_certificate
from tests.support.two_networks import Namespace

from tunnel_rs.proto.raw_keys import Identity
from tunnel_rs.proto.tokens import generate_token
from tunnel_rs.values import Secret

RELAY_IP, RELAY_NAME = "198.51.100.10", "relay.lab"
RELAY_IP6 = "2001:db8::10"
RELAY_URL = f"https://{RELAY_NAME}/"

DIRECT, DIRECT_4, DIRECT_6, RELAYED = (
    r"(direct )?[0-9\[]",
    r"(direct )?\d",
    r"(direct )?\[",
    r"(relay )?https?:",
)
"""What ways look like as programs tell them."""
__all__ = ["Nat", "PathLab", "missing", "path_lab"]


class Events:
    """What one of our programs tells with `--json`, a line each."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.process = process
        self.seen: list[tuple[float, dict[str, Any]]] = []
        self._waiting: queue.Queue[tuple[float, dict[str, Any]]] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                if line.startswith(b"{"):
                    found = (time.monotonic(), json.loads(line))
                    self.seen.append(found)
                    self._waiting.put(found)

    def next(self, name: str, timeout: float, **fields: str) -> tuple[float, dict[str, Any]] | None:
        """The next event of that name whose fields match these patterns, and when it came."""
        until = time.monotonic() + timeout
        while (left := until - time.monotonic()) > 0:
            try:
                at, event = self._waiting.get(timeout=left)
            except queue.Empty:
                return None
            if event["event"] == name and all(
                re.search(pattern, str(event.get(key))) for key, pattern in fields.items()
            ):
                return at, event
        return None

    def end(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._reader.join()

    @property
    def text(self) -> str:
        return "\n".join(f"{at:.2f} {event}" for at, event in self.seen)


@dataclass
class Reached:
    """How one tunnel went. `way` is the last one told; seconds count from the client's start."""

    way: str = ""
    up_after: float | None = None
    direct_after: float | None = None
    echoes: int = 0
    text: str = ""

    @property
    def kind(self) -> str:
        if self.up_after is None:
            return "fails"
        return "direct" if self.direct_after is not None else "relay"


@dataclass
class PathLab:
    """See `path_lab`."""

    lab: NatLab
    directory: Path
    stack: ExitStack
    ipv6: bool = False
    options: tuple[str, ...] = field(default=())
    endpoint_id: str = ""
    _last: dict[str, int] = field(default_factory=dict)
    relay: Events = field(init=False)

    def prepare(self) -> None:
        for name in ("hostA", "hostB", "natA", "natB", "pub"):
            self._name_relay(name)
        self.relay = self.start_relay()
        seed = os.urandom(32)
        key, token = self.directory / "server.key", self.directory / "token.txt"
        key.write_text(base64.b64encode(seed).decode())
        key.chmod(0o600)
        token.write_text(generate_token(os.urandom).reveal())
        self.endpoint_id = str(Identity(Secret(seed)).endpoint_id)
        for where in ("hostB", "natB"):
            self.lab.start(where, [sys.executable, "-c", ECHO])
        authority = str(self.directory / f"{RELAY_NAME}.crt")
        self.options = ("--relay-url", RELAY_URL, "--relay-ca-file", authority)
        self.options += ("--dns-server", "none")

    def _name_relay(self, name: str) -> None:
        settings = Path("/etc/netns", self.lab.namespace(name))
        settings.mkdir(parents=True, exist_ok=True)
        self.stack.callback(shutil.rmtree, settings)
        relay = f"{RELAY_IP} {RELAY_NAME}\n"
        if self.ipv6:
            relay += f"{RELAY_IP6} {RELAY_NAME}\n"
        (settings / "hosts").write_text(f"127.0.0.1 localhost\n{relay}")
        (settings / "resolv.conf").write_text("")

    def start_relay(self) -> Events:
        chain = self.directory / f"{RELAY_NAME}.crt"
        if not chain.exists():
            write_certificate(self.directory, RELAY_NAME)
        file = self.directory / "relay.toml"
        file.write_text(
            f'http_bind_addr = "{RELAY_IP}:80"\nenable_metrics = true\n'
            f'metrics_bind_addr = "{RELAY_IP}:9090"\nenable_quic_addr_discovery = true\n'
            f'[tls]\nhttps_bind_addr = "[::]:443"\ncert_mode = "Manual"\n'
            f'manual_cert_path = "{chain}"\n'
            f'manual_key_path = "{self.directory / RELAY_NAME}.key"\n'
        )
        relay = self._program("pub", "relay", "-c", str(file))
        assert relay.next("ready", 45), relay.text
        return relay

    def relayed(self) -> int:
        """Bytes that the relay has taken so far."""
        url = f"http://{RELAY_IP}:9090/metrics"
        public = Namespace(self.lab.namespace("pub"))
        text = public.call(lambda: urllib.request.urlopen(url, timeout=10).read().decode())
        found = re.search(r"^relayserver_bytes_recv(?:_total)? (\d+)", text, re.MULTILINE)
        assert found is not None, text
        return int(found[1])

    def _program(self, where: str, *arguments: str) -> Events:
        return self._run(where, [sys.executable, "-m", "tunnel_rs", *arguments, "--json"])

    def _run(self, where: str, argv: Sequence[str]) -> Events:
        log = self.stack.enter_context((self.directory / "log").open("ab"))
        process = self.lab.start(where, argv, stdout=subprocess.PIPE, stderr=log)
        events = Events(process)
        self.stack.callback(events.end)
        return events

    def server(self, *options: str) -> Events:
        """B's, once it can be reached."""
        identity = ("--secret-file", "server.key", "--auth-tokens-file", "token.txt")
        server = self._program(
            self.lab.machine("B"),
            *("server", "-v", *identity, "--allowed-tcp", "127.0.0.0/8"),
            *(*self.options, *options),
        )
        assert server.next("ready", 45), server.text
        return server

    def client(self, *options: str, server: str = "") -> Events:
        """A's, for B's server or that of another id."""
        identity = ("-n", server or self.endpoint_id, "--auth-token-file", "token.txt")
        source = ("-s", f"tcp://127.0.0.1:{ECHO_PORT}", "-t", "127.0.0.1:7001")
        return self._program(
            self.lab.machine("A"),
            *("client", "-v", *identity, *source, *self.options, *options),
        )

    def connect(self) -> socket.socket:
        """To the echo service, through A's client."""
        namespace = Namespace(self.lab.namespace(self.lab.machine("A")))
        return namespace.call(lambda: socket.create_connection(("127.0.0.1", 7001), timeout=45))

    def move(self, side: str) -> None:
        """Give the host of a side another address, behind a router that knows nothing of the one
        before: what a change of the access point does."""
        host, number = f"host{side}", "AB".index(side) + 1
        self._last[side] = last = self._last.get(side, 2) + 1
        for command in (
            "addr flush dev eth0",
            f"addr add 10.81.{number}.{last}/24 dev eth0",
            f"route add default via 10.81.{number}.1",
        ):
            self.lab.run(host, f"ip {command}")
        self.lab.use_ports(side, 20_000 + 1000 * (last % 40))
        Namespace(self.lab.namespace(f"nat{side}")).call(_forget_connections)

    def uplink(self, side: str, versions: str) -> None:
        """Let the host of a side have addresses of these versions of IP, `4`, `6` or `46`, and no
        others; those it has already stay as they are."""
        number = "AB".index(side) + 1
        for version, address, router in (
            ("4", f"10.81.{number}.2/24", f"10.81.{number}.1"),
            ("6", f"2001:db8:{number}::2/64 nodad", f"2001:db8:{number}::1"),
        ):
            shown = f"ip -{version} addr show dev eth0 scope global"
            has = bool(self.lab.run(f"host{side}", shown).strip())
            if has and version not in versions:
                self.lab.run(f"host{side}", f"ip -{version} route del default")
                self.lab.run(f"host{side}", f"ip -{version} addr flush dev eth0 scope global")
            elif not has and version in versions:
                host, _, flag = address.partition(" ")
                self.lab.run(f"host{side}", f"ip addr add {host} dev eth0 {flag}".strip())
                self.lab.run(f"host{side}", f"ip -{version} route add default via {router}")

    @staticmethod
    def wait(seconds: float) -> None:
        """Real time must pass, in processes that are not ours."""
        time.sleep(seconds)

    @contextmanager
    def session(
        self, *client: str, within: float = 45.0, server_options: Sequence[str] = ()
    ) -> Iterator["Session"]:
        """A server, a client that is up, and a connection through both."""
        server = self.server(*server_options)
        running = self.client(*client)
        try:
            up = running.next("tunnel_up", within)
            assert up is not None, f"client\n{running.text}\nserver\n{server.text}"
            with self.connect() as sock:
                yield Session(running, server, sock, up)
        finally:
            self.lab.keep_ports()
            running.end()
            server.end()

    def reach(self, *, within: float = 15.0, client: Sequence[str] = ()) -> Reached:
        """One tunnel from start to end; data goes through before and after."""
        found = Reached()
        try:
            with self.session(*client) as session:
                found.up_after = float(session.up[1]["elapsed"])
                found.echoes += echoes(session.sock)
                direct = session.direct(within)
                if direct is not None:
                    found.direct_after = found.up_after + max(0.0, direct - session.up[0])
                found.echoes += echoes(session.sock)
                found.way, found.text = session.way, session.text
        except AssertionError as error:
            found.text = str(error)
        return found


@dataclass
class Session:
    """See `PathLab.session`."""

    client: Events
    server: Events
    sock: socket.socket
    up: tuple[float, dict[str, Any]]

    @property
    def way(self) -> str:
        """What the client said last about its way."""
        return str(([self.up, *self._changes])[-1][1]["way"])

    @property
    def ways(self) -> list[str]:
        """All ways that data has taken since the tunnel was up first, without that one."""
        return [str(event["way"]) for _, event in self._changes]

    @property
    def _changes(self) -> list[tuple[float, dict[str, Any]]]:
        return [each for each in self.client.seen if each[1]["event"] == "path_changed"]

    def direct(self, within: float) -> float | None:
        """When data went directly for good, now or within some seconds; None when it does not."""
        return self.goes(DIRECT, within)

    def goes(self, pattern: str, within: float) -> float | None:
        """When the client began to use a way that matches for good, as for `direct`."""
        until = time.monotonic() + within
        while True:
            at, event = ([self.up, *self._changes])[-1]
            if re.match(pattern, event["way"]):
                return at
            left = until - time.monotonic()
            if left <= 0 or self.client.next("path_changed", left) is None:
                return None

    def echo_within(self, seconds: float) -> float:
        """How long it takes to have some bytes back. Raises TimeoutError."""
        self.sock.settimeout(seconds)
        began = time.monotonic()
        assert echoes(self.sock, 1000)
        return time.monotonic() - began

    @property
    def text(self) -> str:
        return f"client\n{self.client.text}\nserver\n{self.server.text}"


def _forget_connections() -> None:
    """Empty the kernel's table of connections of this namespace (ctnetlink: a deletion that names
    none is of all). With what it knew of the old address, a router gives the new one other ports
    towards each destination, as a symmetric NAT does."""
    delete, request_and_answer = 0x0102, 0x0005
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as sock:
        sock.send(struct.pack("=IHHII4x", 20, delete, request_and_answer, 1, 0))
        _, kind, _, _, _, error = struct.unpack_from("=IHHIIi", sock.recv(1024))
        assert (kind, error) == (2, 0), f"the router's connections stay: error {error}"


def echoes(sock: socket.socket, size: int = 100_000) -> int:
    """Send bytes and have them back; 1 when they are the same."""
    blob = os.urandom(size)
    sender = threading.Thread(target=sock.sendall, args=(blob,))
    sender.start()
    back = b""
    while len(back) < size and (chunk := sock.recv(65_536)):
        back += chunk
    sender.join()
    return int(back == blob)


@contextmanager
def path_lab(*, ipv6: bool = False) -> Iterator[PathLab]:
    """The lab with its relay; gone afterwards. With `ipv6` the relay's name stands for an address
    of IPv6 too, and hosts get some by `PathLab.uplink`."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        directory = Path(name)
        lab = NatLab(f"path{os.getpid() % 100_000}", directory)
        stack.callback(lab.tear_down)
        lab.build()
        made = PathLab(lab, directory, stack, ipv6)
        made.prepare()
        yield made
