"""Which relays and discovery are used, from all that can be said about them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from tests.support.samples import write

from tunnel_rs.config.option import Role
from tunnel_rs.config.reach import MAX_RELAYS, Reach, read_reach
from tunnel_rs.config.sources import collect
from tunnel_rs.errors import ConfigError, TunnelError, UsageError
from tunnel_rs.iroh.discovery_settings import DiscoverySettings
from tunnel_rs.proto.iroh_defaults import PRODUCTION, STAGING
from tunnel_rs.proto.relay_addr import RelayUrl
from tunnel_rs.values import Secret

A, B = "https://a.example/", "http://b.example:3340/"


def reach(
    *relays: str,
    role: Role = Role.SERVER,
    environ: Mapping[str, str] | None = None,
    **given: Sequence[str],
) -> Reach:
    options = {"relay_urls": relays, **given} if relays else given
    return read_reach(collect(role, options, environ or {}, None))


def test_by_default_all_is_public_as_in_iroh() -> None:
    for role, published in ((Role.SERVER, PRODUCTION.pkarr_url), (Role.CLIENT, None)):
        found = reach(role=role)
        assert [relay.text for relay in found.relays] == list(PRODUCTION.relay_urls)
        assert found.public_relays and not found.relay_only
        assert found.discovery == DiscoverySettings(
            publish_url=published, dns_origin=PRODUCTION.dns_origin
        )


def test_staging_is_chosen_by_the_variable_that_iroh_knows() -> None:
    found = reach(environ={"IROH_FORCE_STAGING_RELAYS": "0"})
    assert [relay.text for relay in found.relays] == list(STAGING.relay_urls)
    assert found.discovery.publish_url == STAGING.pkarr_url
    assert reach(environ={"IROH_FORCE_STAGING_RELAYS": ""}) == reach()


def test_own_relays_replace_the_public_ones_and_discovery_stays() -> None:
    found = reach(A, "https://A.example", B)
    assert found.relays == (RelayUrl(A), RelayUrl(B))
    assert not found.public_relays
    assert found.discovery == reach().discovery


def test_none_means_no_relay_at_all() -> None:
    found = reach("none")
    assert found.relays == () and not found.public_relays


def test_relays_alone_leave_nothing_else() -> None:
    found = reach(A, relay_only=["true"], dns_server=["https://dns.example/pkarr"])
    assert found.relay_only and found.discovery == DiscoverySettings()


def test_own_discovery_is_used_both_ways_by_a_server_and_asked_by_a_client() -> None:
    url = "https://dns.example/pkarr"
    server = reach(dns_server=[url]).discovery
    client = reach(dns_server=[url], role=Role.CLIENT).discovery
    assert (server.publish_url, server.resolve_url, server.dns_origin) == (url, url, None)
    assert (client.publish_url, client.resolve_url, client.dns_origin) == (None, url, None)
    assert reach(dns_server=["none"]).discovery == DiscoverySettings()


def test_a_token_goes_to_the_relays_named_beside_it_that_have_none(tmp_path: Path) -> None:
    file = write(tmp_path / "token", "hush\n")
    for found in (
        reach(A + "?token=own", B, environ={"TUNNEL_RS_RELAY_TOKEN": "hush"}),
        reach(A + "?token=own", B, relay_token_file=[str(file)]),
    ):
        assert found.relays == (RelayUrl(A, Secret("own")), RelayUrl(B, Secret("hush")))
        assert "hush" not in repr(found) and "own" not in repr(found)


@pytest.mark.parametrize(
    ("relays", "given", "error", "text"),
    [
        ([], {"relay_only": ["true"]}, UsageError, "--relay-only: needs a relay of your own"),
        (["none"], {"relay_only": ["true"]}, UsageError, "needs a relay of your own"),
        ([A, "none"], {}, UsageError, "none cannot be given beside a relay"),
        (
            [f"https://r{n}.example" for n in range(MAX_RELAYS + 1)],
            {},
            UsageError,
            f"more than {MAX_RELAYS} relays",
        ),
        (
            [A],
            {"relay_only": ["true"], "bind": ["0.0.0.0:0"]},
            UsageError,
            "--bind: cannot be given beside --relay-only",
        ),
    ],
)
def test_what_does_not_go_together_is_an_error(
    relays: list[str], given: dict[str, list[str]], error: type[TunnelError], text: str
) -> None:
    with pytest.raises(error, match=text):
        reach(*relays, **given)


def test_a_token_without_relays_of_ones_own_would_go_to_nobody() -> None:
    with pytest.raises(UsageError, match="no relay that the access token is for: give --relay-url"):
        reach(environ={"TUNNEL_RS_RELAY_TOKEN": "hush"})


@pytest.mark.parametrize("content", ["", "two words", "naïve", "a\nb"])
def test_a_file_that_holds_no_token_is_an_error_that_does_not_show_it(
    tmp_path: Path, content: str
) -> None:
    file = write(tmp_path / "token", content)
    with pytest.raises(ConfigError, match="visible ASCII characters") as caught:
        reach(A, relay_token_file=[str(file)])
    assert str(file) in str(caught.value)
    assert not content or content not in str(caught.value)
