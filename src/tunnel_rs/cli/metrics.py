"""The status of a program as Prometheus metrics."""

from collections.abc import Iterator

from tunnel_rs.proto.prometheus import Family, Kind, render, single
from tunnel_rs.reports import PacketStatus, ProgramStatus


def metrics(status: ProgramStatus) -> str:
    """The whole answer to `GET /metrics`."""
    return render(_families(status))


def _families(status: ProgramStatus) -> Iterator[Family]:
    about = {"program": status.program, "role": status.role, "version": status.version}
    yield Family("tunnel_rs_info", Kind.GAUGE, [(about, 1)], "What runs here.")
    ready = int(status.state == "ready")
    yield single("tunnel_rs_ready", Kind.GAUGE, ready, "Whether it does what it is for.")
    yield single("tunnel_rs_uptime_seconds", Kind.GAUGE, status.seconds)
    yield single("tunnel_rs_peers", Kind.GAUGE, len(status.peers), "Links that are up.")
    yield single("tunnel_rs_tunnels", Kind.GAUGE, len(status.tunnels), "Listeners.")
    yield single("tunnel_rs_sessions", Kind.GAUGE, status.sessions_open, "Open sessions.")
    yield single("tunnel_rs_sessions_total", Kind.COUNTER, status.sessions_begun)
    yield Family(
        "tunnel_rs_bytes_total",
        Kind.COUNTER,
        [({"direction": "sent"}, status.sent), ({"direction": "received"}, status.received)],
        "Payload, as seen by the local sockets.",
    )
    counts = [({"kind": kind}, count) for kind, count in status.counts.items()]
    yield single(
        "tunnel_rs_penalised_sources",
        Kind.GAUGE,
        status.penalties.sources,
        "Sources whose answers are held back after wrong tokens.",
    )
    yield Family("tunnel_rs_events_total", Kind.COUNTER, counts, "What happened, by kind.")
    if status.packets is not None:
        yield from _packets(status.packets)
    yield from _peers(status)


def _packets(packets: PacketStatus) -> Iterator[Family]:
    """What a VPN has carried."""
    yield Family(
        "tunnel_rs_packets_total",
        Kind.COUNTER,
        [({"direction": "sent"}, packets.sent), ({"direction": "received"}, packets.received)],
        "Packets of the VPN.",
    )
    dropped = [({"reason": reason}, count) for reason, count in packets.dropped.items()]
    yield Family("tunnel_rs_packets_dropped_total", Kind.COUNTER, dropped, "And lost, by reason.")


def _peers(status: ProgramStatus) -> Iterator[Family]:
    """What is known of each link; its number tells it from others to the same peer."""
    paths = [
        ({"peer": peer.peer.short, "link": str(peer.link), "kind": path.kind}, round(path.rtt, 6))
        for peer in status.peers
        for path in peer.paths
        if path.active and path.rtt is not None
    ]
    yield Family(
        "tunnel_rs_peer_rtt_seconds",
        Kind.GAUGE,
        paths,
        "Round trip on the path in use.",
    )
    moved = (
        ({**_labels(name, peer.peer.short, peer.link), "direction": direction}, count)
        for peer in status.peers
        for name in (peer.name,)
        for direction, count in (("sent", peer.sent), ("received", peer.received))
    )
    yield Family("tunnel_rs_peer_bytes_total", Kind.COUNTER, moved, "Payload of links that are up.")


def _labels(name: str, peer: str, link: int) -> dict[str, str]:
    return {"name": name, "peer": peer, "link": str(link)}
