from pathlib import Path

import pytest

from tunnel_rs.config import kinds
from tunnel_rs.config.server_files import FileSchema, FileValues, Key, read_values
from tunnel_rs.errors import ConfigError, UsageError

SPEED = Key("engine.speed", kinds.integer(1, 100), 7, variable="ENGINE_SPEED")
COLOR: Key[str | None] = Key("color", kinds.text("a colour", str), None)
MODE = Key("engine", kinds.text("a word", str), "slow")
SCHEMA = FileSchema((SPEED, COLOR, MODE), {"engine.turbo": "there is none"})


def read(tmp_path: Path, text: str, **environ: str) -> FileValues:
    file = tmp_path / "it.toml"
    file.write_text(text)
    return read_values(SCHEMA, file, environ)


def refused(tmp_path: Path, text: str, **environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text, **environ)
    return str(caught.value).removeprefix(f"{tmp_path}/it.toml: ")


def test_without_a_file_the_defaults_are_in_force() -> None:
    values = read_values(SCHEMA, None, {})
    assert values.get(SPEED) == 7
    assert not values.is_given(SPEED)
    assert values.tables == frozenset()


def test_a_file_goes_before_the_defaults_and_the_environment_before_a_file(tmp_path: Path) -> None:
    text = "color = 'red'\n[engine]\nspeed = 9\n"
    assert read(tmp_path, text).get(SPEED) == 9
    values = read(tmp_path, text, ENGINE_SPEED="10")
    assert (values.get(SPEED), values.get(COLOR)) == (10, "red")
    assert values.origin(SPEED).where == "ENGINE_SPEED"


def test_an_empty_variable_counts_as_not_set(tmp_path: Path) -> None:
    assert read(tmp_path, "[engine]\nspeed = 9\n", ENGINE_SPEED="").get(SPEED) == 9


def test_a_name_may_be_a_table_or_a_value(tmp_path: Path) -> None:
    assert read(tmp_path, "engine = 'fast'").get(MODE) == "fast"
    values = read(tmp_path, "[engine]")
    assert (values.get(MODE), values.tables) == ("slow", frozenset({"engine"}))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("colour = 'red'", "colour: unknown key (did you mean 'color'?)"),
        ("[engine]\nsped = 1", "engine.sped: unknown key (did you mean 'engine.speed'?)"),
        ("[engnie]\nspeed = 1", "engnie: unknown key (did you mean 'engine'?)"),
        ("speed = 1", "speed: unknown key (did you mean 'engine.speed'?)"),
        ("[engine]\nturbo = true", "engine.turbo: there is none"),
        ("[engine]\nspeed = 101", "engine.speed: 101 is not a whole number from 1 to 100"),
        ("[engine]\nspeed = 'x'", "engine.speed: expected a whole number from 1 to 100, got a s"),
        ("engine = 3", "engine: expected a string (a word), got an integer"),
        ("color = x", "line 1, column 9: not valid TOML"),
        ('"a.b" = 1', '"a.b": unknown key'),
    ],
)
def test_what_is_wrong_is_told_with_its_place(tmp_path: Path, text: str, problem: str) -> None:
    assert refused(tmp_path, text).startswith(problem)


def test_a_wrong_variable_is_told_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^ENGINE_SPEED: 'x' is not a whole number"):
        read_values(SCHEMA, None, {"ENGINE_SPEED": "x"})


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_values(SCHEMA, tmp_path / "missing.toml", {})


def test_an_error_about_a_value_names_where_it_is_or_would_be(tmp_path: Path) -> None:
    values = read(tmp_path, "color = 'red'")
    assert str(values.error(COLOR, "clashes")) == f"{tmp_path}/it.toml: color: clashes"
    assert str(values.error(SPEED, "is needed")) == f"{tmp_path}/it.toml: engine.speed: is needed"
    error = read_values(SCHEMA, None, {}).error(SPEED, "is needed")
    assert str(error) == "engine.speed: is needed"
    assert not isinstance(error, UsageError)
