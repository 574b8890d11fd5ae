"""`tunnel-rs` and real iroh through the NAT lab, in either role: our client and a server on an iroh
endpoint, or a client on an iroh endpoint and our server.

iroh's wheel trusts no certificate of ours. So the relay is without TLS, and tells nobody how he
looks from outside: we ask a STUN server, and iroh is told what a relay would have told it, where
that is of use (a symmetric NAT gives each peer another port). There is one relay, as a server is at
one relay at a time, and iroh looks for it where it was told.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.netns.nat_lab import ECHO_PORT, STUN, Nat, NatLab
from tests.netns.path_lab import RELAY_IP, Events, PathLab, Session, echoes

RELAY_URL = f"http://{RELAY_IP}:8080/"
SIZE = 100_000
"""Bytes sent to the echo service at a time."""

KEEPS_PORTS = (Nat.FULL_CONE, Nat.RESTRICTED)


@dataclass(frozen=True)
class IrohMet:
    """How one tunnel went. Seconds count from dialling."""

    kind: str
    """`direct`, `relay`, or `fails`."""
    up_after: float | None = None
    direct_after: float | None = None
    relayed_before: int = 0
    """Bytes that the relay took from both until the tunnel was direct, as far as it was."""
    relayed_for_echo: int = 0
    """Bytes that the relay took while `SIZE` bytes went to the echo service and back."""
    echoes: int = 0
    text: str = ""

    def is_as_it_must_be(self, kind: str) -> bool:
        """Whether the tunnel is of that kind and works, and, when direct, goes so both ways."""
        relayed = self.relayed_for_echo
        right_way = relayed < SIZE // 10 if kind == "direct" else relayed > 2 * SIZE
        return self.kind == kind and self.echoes == 2 and right_way


class IrohLab(PathLab):
    """See `iroh_lab`."""

    def prepare(self) -> None:
        super().prepare()
        self.options = ("--relay-url", RELAY_URL, "--dns-server", "none", "--stun-server", STUN)
        log = ["-l", "stdout", "--pidfile", "turn.pid", "--userdb", "turn.db"]
        quiet = ["--no-cli", "--no-tls", "--no-dtls"]
        self.lab.start("pub", ["turnserver", "--stun-only", *quiet, "-L", RELAY_IP, *log])

    def start_relay(self) -> Events:
        file = self.directory / "relay.toml"
        file.write_text(
            f'http_bind_addr = "{RELAY_IP}:8080"\nenable_metrics = true\n'
            f'metrics_bind_addr = "{RELAY_IP}:9090"\n'
        )
        relay = self._program("pub", "relay", "-c", str(file))
        assert relay.next("ready", 45), relay.text
        return relay

    def meet(self, mine: Nat, theirs: Nat, *, iroh_dials: bool, within: float) -> IrohMet:
        """One tunnel from start to end, our side behind `mine` and iroh behind `theirs`."""
        self.lab.set_nat("A", theirs if iroh_dials else mine)
        self.lab.set_nat("B", mine if iroh_dials else theirs)
        server = self.server() if iroh_dials else self._iroh("server", "B", theirs)
        try:
            before = self.relayed()
            client = self._iroh_client(theirs) if iroh_dials else self._our_client(server)
            try:
                return self._watch(client, server, before, within)
            finally:
                client.end()
        finally:
            server.end()

    def _watch(self, client: Events, server: Events, before: int, within: float) -> IrohMet:
        up = client.next("tunnel_up", 45)
        if up is None:
            return IrohMet("fails", text=f"client\n{client.text}\nserver\n{server.text}")
        up_after = float(up[1]["elapsed"])
        with self.connect() as sock:
            session = Session(client, server, sock, up)
            direct = session.direct(within)
            relayed_before = self.relayed() - before
            count = echoes(sock, SIZE)
            before = self.relayed()
            count += echoes(sock, SIZE)
            return IrohMet(
                "relay" if direct is None else "direct",
                up_after,
                None if direct is None else up_after + max(0.0, direct - up[0]),
                relayed_before,
                self.relayed() - before,
                count,
                session.text,
            )

    def _our_client(self, server: Events) -> Events:
        ready = server.next("ready", 45)
        assert ready is not None, server.text
        return self.client(server=ready[1]["endpoint_id"])

    def _iroh_client(self, nat: Nat) -> Events:
        source = f"tcp://127.0.0.1:{ECHO_PORT}"
        return self._iroh("client", "A", nat, self.endpoint_id, source)

    def _iroh(self, role: str, side: str, nat: Nat, *more: str) -> Events:
        number = "AB".index(side) + 1
        outside = f"198.51.100.2{number}" if nat in KEEPS_PORTS else "unknown"
        token = (self.directory / "token.txt").read_text()
        argv = [sys.executable, "-m", "tests.netns.iroh_scene", role, RELAY_URL, outside, token]
        return self._run(self.lab.machine(side), [*argv, *more])


@contextmanager
def iroh_lab() -> Iterator[IrohLab]:
    """The lab with a relay and a STUN server; gone afterwards."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        directory = Path(name)
        lab = NatLab(f"iroh{os.getpid() % 100_000}", directory)
        stack.callback(lab.tear_down)
        lab.build()
        made = IrohLab(lab, directory, stack)
        made.prepare()
        yield made
