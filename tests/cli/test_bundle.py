import json
import socket
import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.support.program import tunnel_rs
from tests.support.samples import (
    CLIENT_HEAD,
    ENDPOINT_ID,
    OTHER_TOKEN,
    SECRET_KEY,
    SERVER_FILE,
    TOKEN,
    write,
)

from tunnel_rs import __version__
from tunnel_rs.cli import bundle
from tunnel_rs.cli.bundle import contents
from tunnel_rs.errors import LocalError
from tunnel_rs.iroh import netcheck_udp
from tunnel_rs.net.control_socket import ControlSocket, Request
from tunnel_rs.net.threads import in_thread

NSEC = "nsec1vl029mgpspedva04g90vltkh6fvh240zqtv9k0t9af8935ke9laqsnlfe5"
SECRETS = (TOKEN, OTHER_TOKEN, SECRET_KEY, NSEC, "hunter2", "s3cret", "letmein", "opensesame")
"""None of these may be anywhere in an archive."""

PRIVATE = (ENDPOINT_ID, "8.8.4.4", "2606:4700::7", "alice")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A user's home with secrets in every place where there may be some."""
    home = tmp_path / "alice"
    config = home / ".config" / "tunnel-rs"
    config.mkdir(parents=True)
    write(config / "server.toml", SERVER_FILE)
    write(
        config / "client.toml",
        f'{CLIENT_HEAD}[iroh]\nauth_token = "{TOKEN}"\nserver_node_id = "{ENDPOINT_ID}"\n'
        'relay_urls = ["https://r.example?token=hunter2"]\nrelay_tokn = "s3cret"\n'
        'peer_addrs = ["8.8.4.4:1"]\nrelay_ca_file = "~/letmein/opensesame.pem"\n'.replace(
            "~/letmein/opensesame", f"{home}/ca"
        ),
    )
    write(
        config / "client_ice.toml",
        f'role = "client"\nmode = "nostr"\n[nostr]\nnsec = "{NSEC}"\n'
        'turn_servers = ["turn:bob:hunter2@turn.example"]\n',
    )
    write(config / "relay.toml", 'access.shared_token = ["letmein"]\n')
    write(config / "broken.toml", f"secret = {SECRET_KEY}\n")
    write(config / "server.key", SECRET_KEY)
    write(config / "tokens.txt", f"{OTHER_TOKEN} name=x\n")
    return home


def environment(home: Path) -> Mapping[str, str]:
    return {
        "HOME": str(home),
        "USER": "alice",
        "XDG_RUNTIME_DIR": str(home),
        "TUNNEL_RS_AUTH_TOKEN": TOKEN,
        "TUNNEL_RS_RELAY_TOKEN": "opensesame",
        "HTTPS_PROXY": "http://alice:hunter2@proxy.example",
        "OTHER": "letmein",
    }


async def test_no_secret_gets_in_from_any_place(home: Path) -> None:
    async def status(_: Request) -> Mapping[str, object]:
        text = f"relay https://r.example/?token=hunter2 of {ENDPOINT_ID} at [2606:4700::7]:1"
        return {"role": "server", "problems": [{"text": text}], "odd": TOKEN}

    findings = [f"Relay https://u:s3cret@r.example: seen as 8.8.4.4 by {socket.gethostname()}"]
    async with ControlSocket(home / "tunnel-rs" / "tunnel-rs-server-1.sock", status):
        files = await in_thread(lambda: contents(findings, json.dumps(findings), environment(home)))
    everything = "\n".join(f"{name}\n{text}" for name, text in files.items())
    for secret in (*SECRETS, *PRIVATE):
        assert secret not in everything
    assert files["netcheck.txt"] == "Relay https://***@r.example: seen as ipv4-1 by HOST\n"
    told = json.loads(files["status-1.json"])
    assert told["problems"] == [{"text": "relay https://r.example/?*** of id-1 at [ipv6-1]:1"}]


def test_what_helps_is_in_it(home: Path) -> None:
    files = contents(["fine"], "{}", environment(home))
    assert f"tunnel-rs {__version__}" in files["versions.txt"]
    assert "aioquic 1." in files["versions.txt"]
    assert "TUNNEL_RS_AUTH_TOKEN" in files["system.txt"]
    assert 'tcp = [\n    "127.0.0.0/8",\n]' in files["config/server.toml"]
    assert 'relay_ca_file = "~/ca.pem"' in files["config/client.toml"]
    assert "not valid TOML" in files["config/broken.toml"]
    assert "server.key" in files["config/LIST.txt"]
    assert files["netcheck.txt"] == "fine\n"
    assert "config/server.key" not in files and "config/tokens.txt" not in files


def test_a_user_without_settings_has_none_in_it(tmp_path: Path) -> None:
    files = contents([], "{}", {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)})
    assert files["config/LIST.txt"] == "~/.config/tunnel-rs: No such file or directory\n"


def test_the_archive_is_for_its_user_alone_and_replaces_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    bundle.write(path, {"a.txt": "b"})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["tunnel-rs-bundle/a.txt"]
        assert archive.read("tunnel-rs-bundle/a.txt") == b"b"
    with pytest.raises(LocalError, match="File exists"):
        bundle.write(path, {})


def test_netcheck_writes_it_beside_its_findings(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(netcheck_udp, "_ANYWHERE", {4: "127.0.0.1", 6: "::1"})
    path = tmp_path / "report.zip"
    ended = tunnel_rs("netcheck", "--offline", "--bundle", str(path), environ=environment(home))
    assert ended.status == 0 and "What this means:" in ended.out
    assert f"written to {path}; look through it" in ended.err
    with zipfile.ZipFile(path) as archive:
        whole = b"\n".join(archive.read(name) for name in archive.namelist()).decode()
    assert not any(secret in whole for secret in SECRETS)
