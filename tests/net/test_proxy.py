"""Proxies from the environment."""

import pytest

from tunnel_rs.errors import ConfigError
from tunnel_rs.net.proxy import HttpProxy, environment_proxy


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def test_without_a_proxy_the_connection_is_direct() -> None:
    assert environment_proxy("https://relay.example/relay") is None


def test_the_proxy_depends_on_the_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    assert environment_proxy("https://relay.example/") == HttpProxy("http://proxy.example:3128", {})
    assert environment_proxy("http://relay.example/") is None


def test_a_name_without_scheme_and_port_is_a_plain_http_proxy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("https_proxy", "[::1]")
    assert environment_proxy("https://relay.example/") == HttpProxy("http://[::1]:80", {})


def test_credentials_travel_in_a_header_and_not_in_the_url(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("https_proxy", "http://us%65r:p%40ss@proxy.example:3128")
    proxy = environment_proxy("https://relay.example/")
    assert proxy is not None and proxy.url == "http://proxy.example:3128"
    assert proxy.headers == {"Proxy-Authorization": "Basic dXNlcjpwQHNz"}


def test_no_proxy_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", "relay.example,127.0.0.1")
    assert environment_proxy("https://relay.example/relay") is None
    assert environment_proxy("https://127.0.0.1:8443/relay") is None
    assert environment_proxy("https://other.example/relay") is not None


@pytest.mark.parametrize(
    "text", ["socks5://hunter2@proxy:1080", "http://", "http://u:hunter2@[", "http://h:99999"]
)
def test_a_variable_that_is_no_http_proxy_is_named_and_not_repeated(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("https_proxy", text)
    with pytest.raises(ConfigError, match=r"https_proxy in the environment") as caught:
        environment_proxy("https://relay.example/")
    assert "hunter2" not in str(caught.value)
