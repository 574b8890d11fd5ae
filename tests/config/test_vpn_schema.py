import re

import pytest

from tunnel_rs.config import vpn_schema
from tunnel_rs.config.option import VPN_BOTH, Option, Role
from tunnel_rs.config.vpn_schema import CLIENT_OPTIONS, SERVER_OPTIONS

OWN = [value for value in vars(vpn_schema).values() if isinstance(value, Option)]


def test_every_option_of_the_module_is_in_a_table() -> None:
    assert all(option in SERVER_OPTIONS or option in CLIENT_OPTIONS for option in OWN)


@pytest.mark.parametrize("option", OWN, ids=lambda option: option.name)
def test_every_option_is_where_its_roles_say_and_is_explained(option: Option[object]) -> None:
    assert option.roles <= VPN_BOTH and option.roles
    assert (option in SERVER_OPTIONS) is (Role.VPN_SERVER in option.roles)
    assert (option in CLIENT_OPTIONS) is (Role.VPN_CLIENT in option.roles)
    assert option.key is not None and option.key.startswith("iroh.")
    assert option.doc.endswith(".") and len(option.doc) > 20
    assert all(re.fullmatch(r"--[a-z0-9-]+", flag) for flag in option.flags)
    assert option.kind.switch or not option.flags or option.metavar
