from pathlib import Path

import pytest

from tunnel_rs.config.option import Option
from tunnel_rs.config.reference import reference
from tunnel_rs.config.schema import OPTIONS
from tunnel_rs.errors import ExitStatus

PAGE = Path(__file__).parents[2] / "docs" / "CONFIGURATION.md"


def test_the_page_in_docs_is_current() -> None:
    advice = "run: python -m tunnel_rs.config.reference >docs/CONFIGURATION.md"
    assert PAGE.read_text() == reference(), advice


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_every_option_is_in_the_page_under_all_its_names(option: Option[object]) -> None:
    rows = [row for row in reference().splitlines() if option.doc.replace("|", "\\|") in row]
    assert len(rows) == len(option.roles)
    for name in [*option.keys, *option.flags, *([option.variable] if option.variable else [])]:
        assert f"`{name}" in rows[0]


def test_every_exit_status_is_in_the_page() -> None:
    for status in ExitStatus:
        assert f"\n- {status.value}: " in reference()


def test_every_row_of_a_table_has_the_same_number_of_cells() -> None:
    rows = [row for row in reference().splitlines() if row.startswith("|")]
    assert {row.replace("\\|", "").count("|") for row in rows} == {7}
