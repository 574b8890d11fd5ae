import pytest

from tunnel_rs.config import kinds
from tunnel_rs.config.option import BOTH, CLIENT, SERVER, VPN_BOTH, Exclusion, Option, Refused, Role

PLAIN: Option[bool] = Option("plain", kinds.SWITCH, False, SERVER, "Nothing but a name.")
FULL: Option[bool] = Option(
    "full",
    kinds.SWITCH,
    False,
    BOTH,
    "Every spelling there is.",
    key="iroh.full",
    aliases=("iroh.old", "iroh.older"),
    flags=("-f", "--full"),
)


def test_the_keys_of_an_option_are_its_key_and_its_aliases() -> None:
    assert FULL.keys == ("iroh.full", "iroh.old", "iroh.older")
    assert PLAIN.keys == ()


def test_the_long_spelling_is_the_one_that_messages_use() -> None:
    assert FULL.flag == "--full"


def test_both_sides_are_a_server_and_a_client() -> None:
    assert {Role.SERVER} == SERVER
    assert BOTH == SERVER | CLIENT
    assert BOTH | VPN_BOTH == set(Role)


@pytest.mark.parametrize(
    ("role", "is_server", "file_name"),
    [
        (Role.SERVER, True, "server.toml"),
        (Role.CLIENT, False, "client.toml"),
        (Role.VPN_SERVER, True, "vpn_server.toml"),
        (Role.VPN_CLIENT, False, "vpn_client.toml"),
    ],
)
def test_a_role_knows_its_side_and_file(role: Role, is_server: bool, file_name: str) -> None:
    assert role.is_server is is_server
    assert role.file_name == file_name


def test_options_that_exclude_each_other_do_so_everywhere_unless_said_otherwise() -> None:
    assert not Exclusion(PLAIN, FULL).together_on_command_line


def test_a_refused_key_comes_with_the_reason() -> None:
    assert (Refused("why", key="k").key, Refused("why", key="k").reason) == ("k", "why")
