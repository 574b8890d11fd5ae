"""Defaults of the QUIC transport, as the specification gives them."""

from dataclasses import FrozenInstanceError

import pytest

from tunnel_rs.proto.transport_settings import (
    DEFAULT_WINDOW,
    MAX_WINDOW,
    MIN_WINDOW,
    CongestionController,
    TransportSettings,
)


def test_defaults_are_those_of_the_specification() -> None:
    settings = TransportSettings()
    assert settings.congestion_controller is CongestionController.CUBIC
    assert settings.receive_window == settings.send_window == DEFAULT_WINDOW == 8 << 20
    assert (settings.idle_timeout, settings.keep_alive) == (300.0, 15.0)
    assert settings.handshake_timeout == 10.0 and settings.silence_timeout is None
    assert settings.fast_path and settings.offload and settings.datagrams
    assert settings.max_streams == 256


def test_windows_have_bounds_around_the_default() -> None:
    assert (MIN_WINDOW, MAX_WINDOW) == (1024, 16 << 20)
    assert MIN_WINDOW < DEFAULT_WINDOW < MAX_WINDOW


def test_controllers_are_named_as_in_the_configuration() -> None:
    assert [str(controller) for controller in CongestionController] == ["cubic", "newreno", "bbr"]


def test_settings_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        TransportSettings().idle_timeout = 1.0  # type: ignore[misc]
