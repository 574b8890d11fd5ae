"""Counters of a relay server, in the Prometheus text format.

Names are those of iroh-relay where it counts the same, so that its dashboards work.
"""

from dataclasses import dataclass, fields

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


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
        lines = []
        for field in fields(self):
            name = f"relayserver_{field.name.removesuffix('_total')}_total"
            lines += [f"# TYPE {name} counter", f"{name} {getattr(self, field.name)}"]
        gauges = {
            "connections": connections,
            "endpoints": endpoints,
            "qad_connections": qad_connections,
        }
        for gauge, value in gauges.items():
            name = f"relayserver_{gauge}"
            lines += [f"# TYPE {name} gauge", f"{name} {value}"]
        return "\n".join(lines) + "\n"
