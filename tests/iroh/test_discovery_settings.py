import pytest

from tunnel_rs.iroh.discovery_settings import DiscoverySettings, choose_discovery, parse_pkarr_url
from tunnel_rs.proto.iroh_defaults import PRODUCTION, STAGING


def test_without_a_choice_the_public_servers_are_used() -> None:
    settings = choose_discovery(None, PRODUCTION, publish=True)
    assert settings == DiscoverySettings(
        publish_url="https://dns.iroh.link/pkarr", dns_origin="dns.iroh.link."
    )
    assert choose_discovery(None, STAGING, publish=True).dns_origin == "staging-dns.iroh.link."


def test_who_is_not_to_be_found_publishes_nothing() -> None:
    assert choose_discovery(None, PRODUCTION, publish=False).publish_url is None
    settings = choose_discovery("https://own.example/pkarr", PRODUCTION, publish=False)
    assert settings == DiscoverySettings(resolve_url="https://own.example/pkarr")


def test_an_own_server_is_used_both_ways_and_the_dns_not_at_all() -> None:
    settings = choose_discovery("https://own.example/pkarr/", PRODUCTION, publish=True)
    assert settings.publish_url == settings.resolve_url == "https://own.example/pkarr"
    assert settings.dns_origin is None


def test_none_turns_everything_off() -> None:
    settings = choose_discovery("none", PRODUCTION, publish=True, publish_direct_addresses=True)
    assert settings == DiscoverySettings()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "None",
        "own.example/pkarr",
        "ftp://own.example/pkarr",
        "https://own.example",
        "https://own.example/",
        "https:///pkarr",
        "https://user:secret@own.example/pkarr",
        "https://own.example/pkarr?x=1",
        "https://own.example/pkarr#x",
        "https://own.example:99999/pkarr",
        "https://own.example:x/pkarr",
        "https://a b/pkarr",
        "https://ä.example/pkarr",
    ],
)
def test_other_values_are_refused(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_pkarr_url(text)
    assert "secret" not in str(caught.value)


def test_a_missing_path_is_suggested() -> None:
    with pytest.raises(ValueError, match="https://own.example/pkarr"):
        parse_pkarr_url("https://own.example/")


@pytest.mark.parametrize(
    "text", ["http://127.0.0.1:8080/pkarr", "http://[::1]:8080/pkarr", "https://h/deep/er/pkarr"]
)
def test_urls_with_a_path_are_kept(text: str) -> None:
    assert parse_pkarr_url(text) == text
