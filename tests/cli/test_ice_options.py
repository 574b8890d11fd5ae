from pathlib import Path

import pytest
from tests.support.ice_scene import Reports

from tunnel_rs.cli.ice_options import load, warn
from tunnel_rs.config import ice_schema as schema
from tunnel_rs.config import schema as shared
from tunnel_rs.config.ice_schema import Mode
from tunnel_rs.config.option import Role
from tunnel_rs.errors import UsageError


def test_the_default_file_is_that_of_the_role(tmp_path: Path) -> None:
    directory = tmp_path / "tunnel-rs"
    directory.mkdir()
    (directory / "server_ice.toml").write_text('role = "server"\nmode = "manual"\n')
    environ = {"XDG_CONFIG_HOME": str(tmp_path)}
    values = load(Role.SERVER, {"default_config": True}, environ)
    assert values.mode is Mode.MANUAL and values.file == directory / "server_ice.toml"


def test_both_ways_to_choose_a_file_are_one_too_many() -> None:
    with pytest.raises(UsageError, match="--default-config cannot be given beside"):
        load(Role.SERVER, {"default_config": True, "config": "x"}, {})


def test_options_are_read_as_texts() -> None:
    given = {"mode": "manual", "no_stun": True, "allowed_tcp": ("10.0.0.0/8",), "config": None}
    values = load(Role.SERVER, given, {})
    assert values.get(schema.NO_STUN) and len(values.get(shared.ALLOWED_TCP)) == 1


def test_an_option_of_the_other_mode_is_refused() -> None:
    with pytest.raises(UsageError, match="--relay: only in nostr mode, this is manual"):
        load(Role.SERVER, {"mode": "manual", "relays": ("ws://x",)}, {})


def test_secrets_that_others_can_see_draw_one_hint(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("x")
    file.chmod(0o644)
    reports = Reports()
    values = load(Role.CLIENT, {"mode": "nostr", "turn_servers": ("turn:u:p@h",)}, {})
    warn(values, reports)
    values = load(Role.CLIENT, {"mode": "nostr", "nsec_file": str(file)}, {})
    warn(values, reports)
    assert "--turn-server: other users" in reports.texts("info")
    assert "chmod 600" in reports.texts("warning")
