"""A server or client that there is something to see of, and nothing behind it."""

from tests.support.samples import ENDPOINT_ID
from tunnel_rs.reports import (
    PacketStatus,
    PathStatus,
    PeerStatus,
    Penalties,
    Penalty,
    SessionStatus,
    TunnelStatus,
)
from tunnel_rs.values import EndpointId, SocketAddr, SourceUrl

PEER = EndpointId.parse(ENDPOINT_ID)
SOURCE = SourceUrl.parse("tcp://127.0.0.1:22")
SESSION = SessionStatus(4, SOURCE, "127.0.0.1:22", 10, 20, 1.5)
TUNNEL = TunnelStatus(1, SOURCE, (SocketAddr("127.0.0.1", 2222),))
PATH = PathStatus("192.0.2.1:4433", "direct", 0.0125)
RELAY = PathStatus("https://relay.example/", "relay", None, active=False)


class FakeSessions:
    def __init__(self) -> None:
        self.begun = 7
        self.totals = (1000, 2000)
        self.aborted: list[tuple[int, str]] = []

    def __len__(self) -> int:
        return 2

    def abort(self, number: int, reason: str) -> bool:
        self.aborted.append((number, reason))
        return number == SESSION.session


class FakeObserved:
    """One peer with one session, and one tunnel."""

    def __init__(self) -> None:
        self.sessions = FakeSessions()
        self.tunnels: tuple[TunnelStatus, ...] = (TUNNEL,)
        self.moved = {3: (10, 20)}
        self.packets: PacketStatus | None = None
        self.penalties = Penalties(7, (Penalty("*", 65.0, 120), Penalty("192.0.2.7", 15.0, 4)))

    async def ping(self) -> dict[str, float]:
        return {str(PEER): 0.0125}

    def disconnect(self, peer: str, reason: str) -> int:
        return 1

    @property
    def peers(self) -> tuple[PeerStatus, ...]:
        paths = (PATH, RELAY)
        return (PeerStatus(PEER, "alice", "token", 65.0, paths, *self.moved[3], (SESSION,), 3),)
