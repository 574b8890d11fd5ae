import pytest

from tunnel_rs.errors import LocalError
from tunnel_rs.net import tun


def test_a_system_without_support_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tun.sys, "platform", "plan9")
    with pytest.raises(LocalError, match="no support for TUN devices on plan9"):
        tun.open_tun()


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_every_system_has_its_module(platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str | None]] = []

    class Module:
        def __init__(self, name: str) -> None:
            self.name = name

        def open_device(self, device: str | None) -> str:
            asked.append((self.name.rpartition("_")[2], device))
            return "device"

    monkeypatch.setattr(tun.sys, "platform", platform)
    monkeypatch.setattr(tun, "import_module", Module)
    tun.open_tun("vpn0")
    assert asked == [({"win32": "windows"}.get(platform, platform), "vpn0")]
