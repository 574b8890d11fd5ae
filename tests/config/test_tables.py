import pytest

from tunnel_rs.config import schema, vpn_schema
from tunnel_rs.config.option import Role
from tunnel_rs.config.tables import FORWARD, VPN, options_for, table_for


@pytest.mark.parametrize("role", Role)
def test_every_role_is_of_one_program(role: Role) -> None:
    assert sum(role in table.options for table in (FORWARD, VPN)) == 1
    assert options_for(role) == table_for(role).options[role]


@pytest.mark.parametrize("role", Role)
def test_no_two_options_of_a_role_share_a_name_key_flag_or_variable(role: Role) -> None:
    options = options_for(role)
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
