import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.samples import CLIENT_FILE, SECRET_KEY, SERVER_FILE, TOKEN

from tunnel_rs.config.masking import masked

ROOT = Path(__file__).parents[2]


def test_secrets_are_masked_and_the_rest_is_shown() -> None:
    shown = tomllib.loads(masked(SERVER_FILE))
    assert shown["role"] == "server"
    assert shown["iroh"]["allowed_sources"] == {"tcp": ["127.0.0.0/8"]}
    assert shown["iroh"]["secret"] == shown["iroh"]["auth_tokens"] == "***"
    assert SECRET_KEY not in masked(SERVER_FILE) and TOKEN not in masked(CLIENT_FILE)


def test_what_is_not_known_is_masked_as_it_may_be_a_misspelt_secret() -> None:
    text = 'role = "client"\n[iroh]\nrelay_tokn = "hunter2"\n[[iroh.tunels]]\nsource = "x"\n'
    assert tomllib.loads(masked(f"{text}[deep.er]\nkey = 'pass'\n")) == {
        "role": "client",
        "iroh": {"relay_tokn": "***", "tunels": [{"source": "***"}]},
        "deep": {"er": {"key": "***"}},
    }


def test_a_key_that_may_also_be_a_table_shows_nothing_of_that_table() -> None:
    assert tomllib.loads(masked('access = "everyone"\n')) == {"access": "everyone"}
    assert tomllib.loads(
        masked('access.shared_token = ["s"]\naccess.http.bearer_token = "t"\n')
    ) == {"access": {"shared_token": "***", "http": {"bearer_token": "***"}}}


def test_of_tunnels_what_they_are_is_shown() -> None:
    text = '[[iroh.tunnels]]\nsource = "tcp://a:1"\ntarget = "b:2"\npassword = "x"\n'
    (tunnel,) = tomllib.loads(masked(text))["iroh"]["tunnels"]
    assert tunnel == {"source": "tcp://a:1", "target": "b:2", "password": "***"}


def test_what_is_no_toml_is_not_shown_at_all() -> None:
    assert masked(f"secret = {SECRET_KEY}\n") == "# not valid TOML, and therefore not shown\n"


@pytest.mark.parametrize("example", sorted(ROOT.glob("*.example")), ids=lambda path: path.name)
def test_every_example_is_masked_with_its_options_shown(example: Path) -> None:
    text = example.read_text()
    shown = masked(text)
    assert tomllib.loads(shown).keys() == tomllib.loads(text).keys()


@given(st.text(max_size=100))
def test_no_text_raises(text: str) -> None:
    masked(text)
