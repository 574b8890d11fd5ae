import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel_rs.config import server_kinds
from tunnel_rs.config.kinds import Kind
from tunnel_rs.config.server_kinds import parse_duration
from tunnel_rs.values import Secret


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("7d", 604_800), ("1h 30m", 5400), ("100ms", 0.1), ("7days", 604_800), ("0s", 0)],
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@given(st.text())
def test_any_text_is_a_duration_or_a_value_error(text: str) -> None:
    try:
        assert parse_duration(text) >= 0
    except ValueError:
        pass


@pytest.mark.parametrize(
    ("kind", "value", "result"),
    [
        (server_kinds.duration(0, 100), 5, 5.0),
        (server_kinds.duration(0, 100), "1m", 60.0),
        (server_kinds.number(0, 10, "things"), 2.5, 2.5),
        (server_kinds.choice("a", "b"), "b", "b"),
        (server_kinds.HOST_NAMES, "a.example", ("a.example",)),
        (server_kinds.HOST_NAMES, ["a.example", "b.example"], ("a.example", "b.example")),
        (server_kinds.URL, "https://a.example:8/x?y=1", "https://a.example:8/x?y=1"),
        (server_kinds.SHARED_TOKENS, ["t"], (Secret("t"),)),
    ],
)
def test_values_in_a_file_are_read(kind: Kind[object], value: object, result: object) -> None:
    assert kind.from_toml(value) == result


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (server_kinds.duration(1, 100), 0),
        (server_kinds.duration(1, 100), "2h"),
        (server_kinds.duration(1, 100), "fast"),
        (server_kinds.duration(1, 100), True),
        (server_kinds.duration(1, 100), float("nan")),
        (server_kinds.number(0, 10, "things"), 11),
        (server_kinds.number(0, 10, "things"), "1"),
        (server_kinds.number(0, 10, "things"), float("inf")),
        (server_kinds.choice("alpha", "beta"), "alhpa"),
        (server_kinds.HOST_NAMES, 5),
        (server_kinds.HOST_NAMES, ["-x"]),
        (server_kinds.URL, "ftp://a.example"),
        (server_kinds.URL, "https://"),
        (server_kinds.URL, "https://a.example/\n"),
        (server_kinds.SHARED_TOKEN, ""),
        (server_kinds.SHARED_TOKEN, "a\nb"),
        (server_kinds.SHARED_TOKENS, ["t"] * 10_001),
        (server_kinds.IPV4, "::1"),
        (server_kinds.IPV6, "127.0.0.1"),
        (server_kinds.PORT, 65_536),
    ],
)
def test_values_that_make_no_sense_are_refused(kind: Kind[object], value: object) -> None:
    with pytest.raises(ValueError):
        kind.from_toml(value)


def test_a_misspelt_word_draws_the_nearest_one() -> None:
    with pytest.raises(ValueError, match="did you mean 'Reloading'"):
        server_kinds.choice("Manual", "Reloading").from_toml("Relaoding")
