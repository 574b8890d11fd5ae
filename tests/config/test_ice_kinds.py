import pytest

from tunnel_rs.config.ice_kinds import ENCRYPTION, NPUB, NSEC, RELAYS, TURN_SERVERS
from tunnel_rs.config.kinds import STUN_SERVERS
from tunnel_rs.proto.signalling import Encryption
from tunnel_rs.values import HostPort


def test_each_kind_reads_text_and_toml() -> None:
    assert STUN_SERVERS.from_toml(["stun.example.org"]) == (HostPort("stun.example.org", 3478),)
    assert RELAYS.from_texts(["ws://127.0.0.1:7000/x"]) == ("ws://127.0.0.1:7000/x",)
    assert ENCRYPTION.from_toml("required") is Encryption.REQUIRED
    assert TURN_SERVERS.from_texts(["turn:u:p@host"])[0].username == "u"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "nos.lol",
        "https://nos.lol",
        "wss://",
        "wss://u:p@nos.lol",
        "wss://nos.lol/#x",
        "wss://nos.lol:0",
        "wss://nos.lol:x",
        "wss://a b",
        "wss://-x-",
        "wss://" + "a" * 600,
    ],
)
def test_what_is_no_relay_is_refused(url: str) -> None:
    with pytest.raises(ValueError):
        RELAYS.from_texts([url])


def test_a_misspelt_setting_is_corrected() -> None:
    with pytest.raises(ValueError, match="did you mean 'required'"):
        ENCRYPTION.from_texts(["require"])


def test_secrets_are_marked_so() -> None:
    assert NSEC.secret and TURN_SERVERS.secret and not NPUB.secret
