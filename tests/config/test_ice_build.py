import os
from pathlib import Path
from typing import Any

import pytest

from tunnel_rs.config.build import exposed_secrets
from tunnel_rs.config.files import ConfigFile
from tunnel_rs.config.ice_build import build_client, build_server
from tunnel_rs.config.ice_schema import Mode
from tunnel_rs.config.option import Role
from tunnel_rs.config.sources import Values, collect
from tunnel_rs.errors import TunnelError, UsageError
from tunnel_rs.proto.nostr_keys import NostrSecretKey
from tunnel_rs.values import SourceUrl

KEY, PEER = NostrSecretKey.generate(os.urandom), NostrSecretKey.generate(os.urandom)
ROOT = Path(__file__).resolve().parents[2]
TUNNEL: dict[str, tuple[str, ...]] = {
    "source": ("tcp://127.0.0.1:22",),
    "target": ("127.0.0.1:2222",),
}
NOSTR: dict[str, tuple[str, ...]] = {"nsec": (KEY.nsec,), "peer_npub": (PEER.public_key.npub,)}


def values(role: Role, mode: Mode, *parts: dict[str, tuple[str, ...]], **more: Any) -> Values:
    given = {name: texts for part in (*parts, more) for name, texts in part.items()}
    return collect(role, given, {}, None, mode)


def client(mode: Mode, *parts: dict[str, tuple[str, ...]], **more: Any) -> Any:
    return build_client(values(Role.CLIENT, mode, *parts, **more))


def server(mode: Mode, *parts: dict[str, tuple[str, ...]], **more: Any) -> Any:
    return build_server(values(Role.SERVER, mode, *parts, **more))


def test_a_manual_client_does_not_reconnect_and_waits_for_people() -> None:
    config = client(Mode.MANUAL, TUNNEL)
    assert not config.forward.reconnect and config.forward.connect_timeout > 3600
    assert config.forward.auth_token is None and config.nostr is None
    assert config.request.source == SourceUrl.parse("tcp://127.0.0.1:22")
    assert not config.request.needs_requests


def test_a_nostr_client_reconnects() -> None:
    config = client(Mode.NOSTR, TUNNEL, NOSTR)
    assert config.forward.reconnect and config.nostr is not None
    assert config.nostr.peer == PEER.public_key and len(config.nostr.relays) == 4


def test_several_sources_and_socks5_need_requests() -> None:
    twice = {"source": ("tcp://a:1", "udp://a:2"), "target": ("x:1", "x:2")}
    assert client(Mode.MANUAL, twice).request.needs_requests
    assert client(Mode.MANUAL, socks5=("127.0.0.1:1080",)).request.needs_requests


def test_stun_is_on_by_default_and_can_be_left_out() -> None:
    assert len(client(Mode.MANUAL, TUNNEL).session.servers.stun) == 2
    assert client(Mode.MANUAL, TUNNEL, no_stun=("true",)).session.servers.stun == ()


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({}, "no source"),
        ({"source": ("tcp://a:1",)}, "no target"),
        ({"target": ("x:1",)}, "no source"),
        ({"source": ("tcp://a:1", "tcp://a:2"), "target": ("x:1",)}, "2 source"),
        ({"source": ("tcp://a:1",), "target": ("udp://x:1",)}, "differ in protocol"),
        ({"source": ("tcp://a:1",) * 2, "target": ("x:1",) * 2}, "target of two tunnels"),
        ({"stdio": ("true",)}, "no source for --stdio"),
        ({"stdio": ("true",), "source": ("udp://a:1",)}, "byte stream"),
        ({"stdio": ("true",), "source": ("tcp://a:1",)}, "--offer-file and --answer-file"),
    ],
)
def test_what_a_manual_client_lacks_is_said(
    given: dict[str, tuple[str, ...]], problem: str
) -> None:
    with pytest.raises(UsageError, match=problem):
        client(Mode.MANUAL, given)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({}, "no Nostr key"),
        ({"nsec": (KEY.nsec,)}, "no npub of the other side"),
        ({"nsec": (KEY.nsec,), "peer_npub": (KEY.public_key.npub,)}, "our own key"),
        ({"nsec": (KEY.nsec,), "nsec_file": ("x",)}, "beside"),
    ],
)
def test_what_a_nostr_client_lacks_is_said(given: dict[str, tuple[str, ...]], problem: str) -> None:
    with pytest.raises(TunnelError, match=problem):
        client(Mode.NOSTR, TUNNEL, given)


def test_a_server_that_allows_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="no allowed network"):
        server(Mode.MANUAL)


def test_one_protocol_that_is_allowed_does_not_allow_the_other() -> None:
    config = server(Mode.NOSTR, NOSTR, allowed_tcp=("127.0.0.0/8",))
    assert config.forward.allowed_udp == () and config.nostr.max_sessions == 10


def test_secrets_on_the_command_line_are_found() -> None:
    found = values(Role.CLIENT, Mode.NOSTR, TUNNEL, NOSTR, turn_servers=("turn:u:p@h",))
    assert set(exposed_secrets(found)) == {"--nsec", "--turn-server"}


@pytest.mark.parametrize("role", [Role.SERVER, Role.CLIENT])
def test_the_shipped_examples_are_good(
    role: Role, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = ConfigFile.read(ROOT / f"{role}_ice.toml.example")
    monkeypatch.setenv("HOME", str(tmp_path))
    keys = tmp_path / ".config" / "tunnel-rs"
    keys.mkdir(parents=True)
    (keys / f"{role}.nsec").write_text(KEY.nsec)
    found = collect(role, {}, {}, file, Mode.NOSTR)
    (build_server if role is Role.SERVER else build_client)(found)
