"""Counters of a relay server, in the Prometheus text format.

Names are those of iroh-relay where it counts the same, so that its dashboards work.
"""

from dataclasses import dataclass, fields

from tunnel_rs.proto.prometheus import Family, Kind, render, single


@dataclass(slots=True)
class RelayMetrics:
    """Totals since the start. Plain integers: all of it runs in one thread."""

    bytes_sent: int = 0
    bytes_recv: int = 0
    send_packets_sent: int = 0
    send_packets_recv: int = 0
    send_packets_dropped: int = 0
    got_ping: int = 0
    sent_pong: int = 0
    accepts: int = 0
    disconnects: int = 0
    connections_refused: int = 0
    auth_failures: int = 0
    access_denied: int = 0
    slow_clients_dropped: int = 0
    frames_invalid: int = 0
    bytes_rx_ratelimited_total: int = 0
    duplicate_endpoints: int = 0
    qad_accepts: int = 0
    qad_refused: int = 0

    def render(self, *, connections: int, endpoints: int, qad_connections: int = 0) -> str:
        """The whole answer to `GET /metrics`; the arguments are present numbers."""
        gauges = {
            "connections": connections,
            "endpoints": endpoints,
            "qad_connections": qad_connections,
        }
        return render(
            [
                *(self._counter(field.name) for field in fields(self)),
                *(single(f"relayserver_{n}", Kind.GAUGE, value) for n, value in gauges.items()),
            ]
        )

    def _counter(self, name: str) -> Family:
        full_name = f"relayserver_{name.removesuffix('_total')}_total"
        return single(full_name, Kind.COUNTER, getattr(self, name))
