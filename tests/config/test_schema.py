import re
from itertools import chain
from pathlib import Path

import pytest

from tunnel_rs.config import operation_options, schema, transport_options
from tunnel_rs.config.files import ConfigFile
from tunnel_rs.config.option import BOTH, Option, Role
from tunnel_rs.config.schema import OPTIONS
from tunnel_rs.config.sources import collect, file_values
from tunnel_rs.config.tables import options_for, table_for

ROOT = Path(__file__).parents[2]
EXAMPLES = {role: ROOT / f"{role.file_name}.example" for role in Role}
OFF = re.compile(r"^#(?=[a-z\[])", re.MULTILINE)
"""What turns an option of an example off: a # with no blank behind it."""


def ways(option: Option[object]) -> list[str]:
    return [*option.keys, *option.flags, *([option.variable] if option.variable else [])]


def test_the_table_holds_every_option_of_the_module_once() -> None:
    modules = {**vars(schema), **vars(transport_options), **vars(operation_options)}
    defined = [value for value in modules.values() if isinstance(value, Option)]
    assert sorted(option.name for option in OPTIONS) == sorted(o.name for o in defined)


@pytest.mark.parametrize("role", Role)
def test_no_two_options_of_a_role_share_a_name(role: Role) -> None:
    options = options_for(role)
    names = list(chain.from_iterable(ways(option) for option in options))
    assert len(names) == len(set(names))
    assert len({option.name for option in options}) == len(options)


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_every_option_can_be_given_and_is_explained(option: Option[object]) -> None:
    assert ways(option)
    assert option.roles <= BOTH and option.roles
    assert option.doc.endswith(".") and len(option.doc) > 20
    assert all(re.fullmatch(r"-[a-z]|--[a-z0-9-]+", flag) for flag in option.flags)
    assert option.kind.switch or not option.flags or option.metavar


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_secrets_have_a_default_of_nothing(option: Option[object]) -> None:
    assert not option.kind.secret or not option.default


@pytest.mark.parametrize("role", Role)
def test_the_example_file_is_good_as_it_is(role: Role) -> None:
    values = collect(role, {}, {}, ConfigFile.read(EXAMPLES[role]))
    assert values.settings


@pytest.mark.parametrize("role", Role)
def test_the_example_file_is_good_with_every_option_turned_on(role: Role, tmp_path: Path) -> None:
    text, count = OFF.subn("", EXAMPLES[role].read_text())
    path = tmp_path / "all.toml"
    path.write_text(text)
    layer = file_values(ConfigFile.read(path), role, table_for(role))
    assert count > 5
    assert set(layer) == {option.name for option in options_for(role) if option.key}


@pytest.mark.parametrize("role", Role)
def test_options_that_are_off_in_the_example_file_show_their_default(
    role: Role, tmp_path: Path
) -> None:
    path = tmp_path / "all.toml"
    path.write_text(OFF.sub("", EXAMPLES[role].read_text()))
    layer = file_values(ConfigFile.read(path), role, table_for(role))
    for option in options_for(role):
        if option.name in layer and option.default not in (None, ()):
            assert layer[option.name].value == option.default
