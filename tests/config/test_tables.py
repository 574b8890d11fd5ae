import pytest

from tunnel_rs.config import schema, vpn_schema
from tunnel_rs.config.option import Role
from tunnel_rs.config.tables import (
    FORWARD,
    MANUAL,
    NOSTR,
    TABLES,
    VPN,
    Table,
    options_for,
    table_for,
)


@pytest.mark.parametrize("role", Role)
def test_every_role_is_of_one_program(role: Role) -> None:
    assert sum(role in table.options for table in (FORWARD, VPN)) == 1
    assert options_for(role) == table_for(role).options[role]


def test_role_and_mode_tell_the_table() -> None:
    for table in TABLES:
        for role in table.options:
            assert table_for(role, table.mode) is table
    assert table_for(Role.SERVER, "nostr") is NOSTR and table_for(Role.CLIENT, "manual") is MANUAL


def test_a_table_knows_its_commands_and_the_sections_of_its_files() -> None:
    assert FORWARD.command(Role.SERVER) == "tunnel-rs server"
    assert VPN.command(Role.VPN_CLIENT) == "tunnel-rs-vpn client"
    assert MANUAL.command(Role.CLIENT) == "tunnel-rs-ice client"
    assert {"manual", "manual.allowed_sources", "manual.transport"} == MANUAL.sections


@pytest.mark.parametrize(
    ("table", "role"), [(table, role) for table in TABLES for role in table.options]
)
def test_no_two_options_of_a_role_share_a_name_key_flag_or_variable(
    table: Table, role: Role
) -> None:
    options = table.options[role]
    for names in (
        [option.name for option in options],
        [key for option in options for key in option.keys],
        [flag for option in options for flag in option.flags],
    ):
        assert len(names) == len(set(names))


def test_each_program_has_its_own() -> None:
    assert schema.ALLOWED_TCP in options_for(Role.SERVER)
    assert schema.ALLOWED_TCP not in options_for(Role.VPN_SERVER)
    assert vpn_schema.NETWORK in options_for(Role.VPN_SERVER)
    assert vpn_schema.NETWORK not in options_for(Role.SERVER)
    assert schema.SECRET_FILE in options_for(Role.VPN_SERVER)
