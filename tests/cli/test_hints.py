import os
import sys
from pathlib import Path

import pytest
from tests.support.samples import SECRET_KEY, TOKEN, write

from tunnel_rs.cli.hints import warn_of_exposed_secrets, warn_of_open_key_file
from tunnel_rs.config.option import Role
from tunnel_rs.config.sources import Values, collect
from tunnel_rs.reports import Notice, Report


def hints(values: Values) -> list[Report]:
    reports: list[Report] = []
    warn_of_exposed_secrets(values, reports.append)
    warn_of_open_key_file(values, reports.append)
    return reports


def test_secrets_on_the_command_line_draw_one_hint() -> None:
    given = {"secret": [SECRET_KEY], "auth_tokens": [TOKEN]}
    text = (
        "hint: --auth-tokens and --secret: other users of this machine can see it "
        "in the process list; use a file or the environment"
    )
    assert hints(collect(Role.SERVER, given, {}, None)) == [Notice("info", text)]


def test_an_access_token_in_a_relay_url_is_a_secret_too() -> None:
    given = {"relay_urls": ["https://relay.example/?token=hush"]}
    [hint] = hints(collect(Role.CLIENT, given, {}, None))
    assert isinstance(hint, Notice)
    assert hint.text.startswith("hint: --relay-url: ") and "hush" not in hint.text
    without = {"relay_urls": ["https://relay.example/"]}
    assert hints(collect(Role.CLIENT, without, {}, None)) == []


def test_secrets_elsewhere_draw_none() -> None:
    assert hints(collect(Role.SERVER, {}, {"TUNNEL_RS_SECRET": SECRET_KEY}, None)) == []


@pytest.mark.skipif(sys.platform == "win32", reason="file modes say nothing on Windows")
def test_a_key_file_open_to_others_draws_a_warning(tmp_path: Path) -> None:
    file = write(tmp_path / "key", SECRET_KEY)
    values = collect(Role.SERVER, {"secret_file": [str(file)]}, {}, None)
    os.chmod(file, 0o644)
    (warning,) = hints(values)
    assert isinstance(warning, Notice) and warning.level == "warning"
    assert f"chmod 600 {file}" in warning.text
    os.chmod(file, 0o600)
    assert hints(values) == []
