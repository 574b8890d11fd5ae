from tunnel_rs.config.operation_options import AUDIT_LOG, OPERATIONS
from tunnel_rs.config.option import SERVER
from tunnel_rs.config.schema import OPTIONS


def test_the_schema_holds_them() -> None:
    assert set(OPERATIONS) <= set(OPTIONS)


def test_only_a_server_has_something_to_audit() -> None:
    assert AUDIT_LOG.roles == SERVER


def test_all_are_off_or_chosen_by_us_unless_given() -> None:
    assert {option.default for option in OPERATIONS} == {None}
