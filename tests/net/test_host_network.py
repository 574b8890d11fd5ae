import pytest

from tunnel_rs.errors import LocalError
from tunnel_rs.net import host_network
from tunnel_rs.net.routes_darwin import DarwinNetwork
from tunnel_rs.net.routes_windows import WindowsNetwork


def test_a_system_without_support_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_network.sys, "platform", "plan9")
    with pytest.raises(LocalError, match="plan9"):
        host_network.host_network()


@pytest.mark.parametrize(
    ("platform", "kind"), [("darwin", DarwinNetwork), ("win32", WindowsNetwork)]
)
def test_every_system_has_its_own(
    platform: str, kind: type[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_network.sys, "platform", platform)
    assert isinstance(host_network.host_network(), kind)
