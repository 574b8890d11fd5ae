"""The defaults of a relay server are safe, and those of iroh-relay where they exist there."""

from tunnel_rs.proto.relay_access import Everyone
from tunnel_rs.selfhost.relay_settings import DEV_HTTP_ADDR, RelayServerSettings


def test_the_defaults_are_those_of_iroh_relay() -> None:
    settings = RelayServerSettings()
    assert settings.enable_relay and settings.enable_metrics
    assert str(settings.http_bind_addr) == "[::]:80" and str(DEV_HTTP_ADDR) == "[::]:3340"
    assert settings.access == Everyone()
    assert settings.limits.client_rx is None and settings.limits.queue_packets == 512


def test_metrics_are_for_this_machine_only() -> None:
    assert RelayServerSettings().metrics_bind_addr.ip == "127.0.0.1"


def test_memory_for_one_client_and_the_number_of_clients_are_bounded() -> None:
    limits = RelayServerSettings().limits
    assert limits.max_connections < 100_000 and limits.queue_bytes < 2**22
    assert limits.max_connections_per_address is not None
