from tunnel_rs.config import vpn_schema
from tunnel_rs.config.operation_options import AUDIT_LOG, OPERATIONS
from tunnel_rs.config.option import SERVER
from tunnel_rs.config.schema import OPTIONS


def test_the_schema_holds_them() -> None:
    assert set(OPERATIONS) <= set(OPTIONS)


def test_a_vpn_has_them_too() -> None:
    assert set(OPERATIONS) <= set(vpn_schema.SERVER_OPTIONS)
    assert set(OPERATIONS) - {AUDIT_LOG} <= set(vpn_schema.CLIENT_OPTIONS)


def test_only_a_server_has_something_to_audit() -> None:
    assert AUDIT_LOG.roles == SERVER
    assert AUDIT_LOG not in vpn_schema.CLIENT_OPTIONS


def test_all_are_off_or_chosen_by_us_unless_given() -> None:
    assert {option.default for option in OPERATIONS} == {None}
