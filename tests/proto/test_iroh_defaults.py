import pytest

from tunnel_rs.proto.dns_wire import parse_name
from tunnel_rs.proto.iroh_defaults import PRODUCTION, STAGING, Infrastructure, public_infrastructure
from tunnel_rs.proto.relay_addr import RelayUrl


@pytest.mark.parametrize("environment", [{}, {"IROH_FORCE_STAGING_RELAYS": ""}])
def test_production_is_the_default(environment: dict[str, str]) -> None:
    assert public_infrastructure(environment) is PRODUCTION


@pytest.mark.parametrize("value", ["1", "0", "false"])
def test_any_value_selects_staging(value: str) -> None:
    assert public_infrastructure({"IROH_FORCE_STAGING_RELAYS": value}) is STAGING


@pytest.mark.parametrize("infrastructure", [PRODUCTION, STAGING])
def test_all_names_are_in_normal_form(infrastructure: Infrastructure) -> None:
    for url in infrastructure.relay_urls:
        assert RelayUrl.parse(url).text == url
    assert parse_name(infrastructure.dns_origin)
