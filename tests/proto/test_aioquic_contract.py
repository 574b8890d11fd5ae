"""What we lean on in aioquic is checked at import, and nothing is left out of the check."""

import ast
from pathlib import Path

import pytest
from aioquic.quic.connection import QuicConnection
from aioquic.quic.recovery import QuicPacketRecovery
from aioquic.quic.stream import QuicStreamSender

from tunnel_rs.proto import aioquic_contract
from tunnel_rs.proto.aioquic_contract import _ATTRIBUTES, _SIGNATURES, check

ENGINE = (
    "congestion",
    "engine",
    "fast_engine",
    "mtu_discovery",
    "multipath",
    "packet_protection",
    "path_context",
    "path_frames",
    "path_keys",
    "path_life",
    "path_moves",
    "path_output",
    "path_timers",
    "quic_packets",
    "raw_keys",
    "recovery",
    "stream_scheduler",
)


def test_the_installed_aioquic_fits() -> None:
    check()


def test_a_missing_name_is_said_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(QuicStreamSender, "on_reset_delivery")
    with pytest.raises(
        ImportError,
        match=r"^aioquic 1\.7\.\d+ does not fit this version of tunnel-rs "
        r"\(QuicStreamSender\.on_reset_delivery changed\); install 'aioquic>=1\.7\.2,<1\.8'$",
    ):
        check()


def test_a_changed_signature_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def changed(self: QuicConnection, peer_cid: bytes, more: int) -> None: ...

    monkeypatch.setattr(QuicConnection, "_initialize", changed)
    with pytest.raises(ImportError, match=r"\(QuicConnection\._initialize changed\)"):
        check()


def test_a_missing_attribute_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    made = QuicPacketRecovery.__init__

    def init(self: QuicPacketRecovery, **kwargs: object) -> None:
        made(self, **kwargs)  # type: ignore[arg-type]
        del self._rtt_variance

    monkeypatch.setattr(QuicPacketRecovery, "__init__", init)
    with pytest.raises(ImportError, match=r"\(QuicPacketRecovery\._rtt_variance changed\)"):
        check()


def test_each_private_name_that_the_engine_uses_is_checked() -> None:
    folder = Path(aioquic_contract.__file__).parent
    used: set[str] = set()
    ours: set[str] = set()
    for module in ENGINE:
        source = folder / f"{module}.py"
        if not source.exists():
            continue
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.FunctionDef):
                ours.add(node.name)
            elif isinstance(node, ast.Attribute) and node.attr.startswith("_"):
                is_self = isinstance(node.value, ast.Name) and node.value.id == "self"
                (ours if isinstance(node.ctx, ast.Store) and is_self else used).add(node.attr)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                ours.add(node.value)  # __slots__
    checked = {name for members in _SIGNATURES.values() for name in members}
    checked |= {name for names in _ATTRIBUTES.values() for name in names}
    private = {name for name in used if not name.startswith("__")}
    assert private - ours - checked == set()
