from pathlib import Path

import pytest

from tunnel_rs.config import ice_schema, vpn_schema
from tunnel_rs.config.option import Option, Role
from tunnel_rs.config.reference import reference
from tunnel_rs.config.schema import OPTIONS
from tunnel_rs.errors import ExitStatus

PAGE = Path(__file__).parents[2] / "docs" / "CONFIGURATION.md"


def test_the_page_in_docs_is_current() -> None:
    advice = "run: python -m tunnel_rs.config.reference >docs/CONFIGURATION.md"
    assert PAGE.read_text() == reference(), advice


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_every_option_is_in_the_page_under_all_its_names(option: Option[object]) -> None:
    page, _, _ = reference().partition("## tunnel-rs-ice")
    rows = [row for row in page.splitlines() if option.doc.replace("|", "\\|") in row]
    assert len(rows) == len(option.roles)
    for name in [*option.keys, *option.flags, *([option.variable] if option.variable else [])]:
        assert f"`{name}" in rows[0]


def test_every_exit_status_is_in_the_page() -> None:
    for status in ExitStatus:
        assert f"\n- {status.value}: " in reference()


def test_every_row_of_a_table_has_the_same_number_of_cells() -> None:
    rows = [row for row in reference().splitlines() if row.startswith("|")]
    assert {row.replace("\\|", "").count("|") for row in rows} == {7}


@pytest.mark.parametrize("role", ["server", "client"])
def test_every_option_of_tunnel_rs_ice_has_a_row(role: str) -> None:
    _, _, rest = reference().partition(f"### {role.capitalize()} of tunnel-rs-ice")
    rows = [row for row in rest.partition("###")[0].splitlines() if row.startswith("| `")]
    rows += [row for row in rest.partition("###")[0].splitlines() if row.startswith("| - ")]
    options = ice_schema.all_options(Role(role))
    assert len(rows) == len(options)
    for option in options:
        assert not option.flags or any(f"`{option.flags[0]}" in row for row in rows)


@pytest.mark.parametrize(
    ("title", "options"),
    [("Server", vpn_schema.SERVER_OPTIONS), ("Client", vpn_schema.CLIENT_OPTIONS)],
)
def test_every_option_of_tunnel_rs_vpn_has_a_row(
    title: str, options: tuple[Option[object], ...]
) -> None:
    _, _, rest = reference().partition(f"### {title} of tunnel-rs-vpn")
    rows = rest.partition("###")[0].splitlines()
    assert sum(row.startswith(("| `", "| - ")) for row in rows) == len(options)
    for option in options:
        names = filter(None, [option.key, *option.flags, option.variable])
        assert all(any(f"`{name}" in row for row in rows) for name in names)
