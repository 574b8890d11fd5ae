from typing import Any

from tunnel_rs.ice.link import IceLink
from tunnel_rs.reports import PathStatus
from tunnel_rs.values import EndpointId, SourceUrl


class Parts:
    """Stands for the agent and the connection, and writes down what is asked of them."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.engine = self
        self.face = self
        self.address = (1, "192.0.2.1", 2)
        self.rtt = 0.25

    def on_consent_lost(self, callback: Any) -> None:
        self.consent_lost = callback

    def describe(self, path: Any) -> str:
        return f"direct, {path[1]}"

    def is_relayed(self, path: Any) -> bool:
        return bool(path[1] == "192.0.2.1")

    async def ping(self) -> float:
        return 0.5

    def close(self, *args: Any) -> None:
        self.asked.append(args)

    def open_window(self) -> None:
        self.asked.append("window")


def test_a_link_is_its_connection_with_a_name_and_a_described_path() -> None:
    parts = Parts()
    source = SourceUrl.parse("tcp://a:1")
    link = IceLink(parts, parts, EndpointId(bytes(32)), source)  # type: ignore[arg-type]
    assert (link.address, link.fixed_source) == ("direct, 192.0.2.1", source)
    link.open_window()
    link.close(7, "why")
    parts.consent_lost()
    assert parts.asked == ["window", (7, "why"), (0, "ice disconnected")]


async def test_a_path_by_turn_is_told_as_a_relay_s() -> None:
    parts = Parts()
    link = IceLink(parts, parts, EndpointId(bytes(32)), None)  # type: ignore[arg-type]
    assert link.paths == (PathStatus("direct, 192.0.2.1", "relay", 0.25),)
    parts.address = (1, "192.0.2.2", 2)
    assert link.paths[0].kind == "direct"
    assert await link.ping() == 0.5
