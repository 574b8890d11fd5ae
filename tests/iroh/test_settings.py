"""Tests of `tunnel_rs.iroh.settings`."""

from dataclasses import FrozenInstanceError

import pytest

from tunnel_rs.iroh.settings import EndpointSettings
from tunnel_rs.proto.transport_settings import TransportSettings
from tunnel_rs.values import Secret


def test_by_default_nothing_is_known_and_the_local_network_is_asked() -> None:
    settings = EndpointSettings()
    assert settings.secret_key is None
    assert settings.bind is None
    assert settings.peer_addrs == ()
    assert settings.lan_discovery
    assert settings.transport == TransportSettings()


def test_settings_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        EndpointSettings().bind = None  # type: ignore[misc]


def test_the_key_is_not_shown() -> None:
    seed = bytes(range(32))
    text = repr(EndpointSettings(secret_key=Secret(seed)))
    assert "***" in text
    assert repr(seed) not in text
    assert seed.hex() not in text
