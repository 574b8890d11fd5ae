"""Programs that people use, through `tunnel-rs-ice` in both modes; in nostr mode over the relay of
rust-nostr, which we did not write and which blocks the original's kind of events."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from tests.support import servers
from tests.support.servers import find, ice, our_client, output_of, running

from tunnel_rs.proto.nostr_keys import NostrSecretKey

nostr_sdk = pytest.importorskip("nostr_sdk")

pytestmark = pytest.mark.interop

ALLOWED = ("--allowed-tcp", "127.0.0.0/8", "--allowed-udp", "127.0.0.0/8", "--no-stun")
EVENT_KIND = 24_243

Session = Callable[[Path], AbstractAsyncContextManager[Sequence[str]]]
"""A server, until left; yields the command line of a client, without what is to be forwarded."""


@asynccontextmanager
async def manual(folder: Path) -> AsyncIterator[Sequence[str]]:
    blocks = ("--offer-file", folder / "offer", "--answer-file", folder / "answer")
    server = ice("server", "manual", *ALLOWED, *blocks)
    async with running(*server, ready="waiting for the offer") as program:
        async with servers.draining(program):
            yield ice("client", "manual", "--no-stun", *blocks)


@asynccontextmanager
async def nostr(folder: Path) -> AsyncIterator[Sequence[str]]:
    relay = nostr_sdk.LocalRelayBuilder().build()
    await relay.run()
    keys = {role: NostrSecretKey.generate(os.urandom) for role in ("server", "client")}
    for role, peer in (("server", "client"), ("client", "server")):
        (folder / f"{role}.nsec").write_text(keys[role].nsec)
        (folder / f"{role}.nsec").chmod(0o600)
        (folder / f"{role}.toml").write_text(
            f'role = "{role}"\nmode = "nostr"\n[nostr]\nnsec_file = "{folder}/{role}.nsec"\n'
            f'peer_npub = "{keys[peer].public_key.npub}"\nrelays = ["{await relay.url()}"]\n'
            f"event_kind = {EVENT_KIND}\n"
        )
    server = ice("server", "-c", folder / "server.toml", *ALLOWED)
    async with running(*server, ready="Waiting for clients") as program:
        async with servers.draining(program):
            yield ice("client", "-c", folder / "client.toml", "--no-stun")
    relay.shutdown()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("session", [manual, nostr])
async def test_openssh_http_and_dns_share_a_session(session: Session, tmp_path: Path) -> None:
    payload = os.urandom(5_000_000)
    (tmp_path / "sent").write_bytes(payload)
    names = dict(servers.numbered(5))
    async with (
        servers.sshd(tmp_path) as sshd,
        servers.nginx(tmp_path) as web,
        servers.dnsmasq(names) as dns,
        session(tmp_path) as client,
    ):
        (tmp_path / "www" / "page").write_bytes(payload)
        sources = (
            f"tcp://127.0.0.1:{sshd.port}",
            f"tcp://127.0.0.1:{web}",
            f"udp://127.0.0.1:{dns}",
        )
        tunnels = [word for source in sources for word in ("-s", source, "-t", "127.0.0.1:0")]
        async with our_client(client, *tunnels, "--socks5", "127.0.0.1:0") as ports:
            ssh_port, web_port, dns_port, socks = ports
            scp = (find("scp"), *sshd.options, "-P", str(ssh_port))
            await output_of(*scp, tmp_path / "sent", f"{sshd.login}:{tmp_path}/there")
            await output_of(*scp, f"{sshd.login}:{tmp_path}/there", tmp_path / "back")
            assert (tmp_path / "back").read_bytes() == payload

            curl = (find("curl"), "-sSf", "--noproxy", "*", "-o", tmp_path / "page")
            await output_of(*curl, f"http://127.0.0.1:{web_port}/page")
            assert same(tmp_path / "page", payload)
            by_socks = (find("curl"), "-sSf", "--noproxy", "", "-o", tmp_path / "proxied")
            proxy = ("--socks5-hostname", f"127.0.0.1:{socks}")
            await output_of(*by_socks, *proxy, f"http://localhost:{web}/page")
            assert same(tmp_path / "proxied", payload)

            dig = (find("dig"), "@127.0.0.1", "-p", str(dns_port), "+short", "+tries=1")
            answers = await asyncio.gather(*(output_of(*dig, name) for name in names))
            assert [answer.strip() for answer in answers] == list(names.values())


def same(file: Path, payload: bytes) -> bool:
    return hashlib.sha256(file.read_bytes()).digest() == hashlib.sha256(payload).digest()


@pytest.mark.parametrize("session", [manual, nostr])
async def test_openssh_by_a_proxy_command(session: Session, tmp_path: Path) -> None:
    async with servers.sshd(tmp_path) as sshd, session(tmp_path) as client:
        words = [*client, "--stdio", "-s", f"tcp://127.0.0.1:{sshd.port}"]
        proxy = " ".join(
            word if word.isascii() and " " not in word else f"'{word}'" for word in words
        )
        ssh = (find("ssh"), *sshd.options, f"-oProxyCommand={proxy}", sshd.login)
        typed = b"x" * 200_000
        assert await output_of(*ssh, "cat; echo done", stdin=typed) == f"{typed.decode()}done\n"
