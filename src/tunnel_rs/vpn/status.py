"""What a VPN server or client is doing, as plain values for JSON."""

from tunnel_rs.net.link import Link
from tunnel_rs.vpn.client import VpnClient
from tunnel_rs.vpn.server import VpnServer
from tunnel_rs.vpn.session import Session


def of_server(server: VpnServer, now: float) -> dict[str, object]:
    """`now`: the loop's clock, in seconds."""
    return {
        "role": "vpnserver",
        "device": server.device,
        "addresses": list(server.addresses),
        "clients": [_session(session, now) for session in server.sessions],
        "dropped": dict(server.switch.dropped),
        "nat64_flows": server.switch.nat64_flows,
    }


def _session(session: Session, now: float) -> dict[str, object]:
    return {
        **_link(session.link),
        "addresses": list(session.leases.texts),
        "offload": session.offload,
        "name": session.held.name,
        "connected_seconds": round(now - session.since, 1),
        **session.traffic.as_json(),
    }


def of_client(client: VpnClient) -> dict[str, object]:
    response, link = client.response, client.link
    leases = [] if response is None else [response.lease4, response.lease6]
    return {
        "role": "vpnclient",
        "device": client.device,
        "connected": link is not None,
        **({} if link is None else _link(link)),
        "addresses": [str(lease.address) for lease in leases if lease is not None],
        "routes": [str(route) for route in client.routes],
        **client.traffic.as_json(),
    }


def _link(link: Link) -> dict[str, object]:
    # Not every kind of link knows its round trip.
    rtt = getattr(link, "rtt", None)
    return {
        "peer": str(link.peer),
        "path": link.address,
        "rtt_ms": None if rtt is None else round(rtt * 1000, 2),
    }
