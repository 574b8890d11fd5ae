"""Text for `nft -f -`: the tables of a VPN server and a VPN client.

Each is one table of our own, made anew and removed as a whole; no other table is touched.
"""

from dataclasses import dataclass

from tunnel_rs.proto.vpn_routes import MARK

SERVER_TABLE = "tunnel_rs_vpn_of_"
"""The name of a server's table begins so, and ends with its device."""

CLIENT_TABLE = "tunnel_rs_vpn_client"

_DEVICE_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
"""Those of `device` in a configuration; none that means something to nft."""


@dataclass(frozen=True, slots=True)
class Forwarding:
    """What a server lets the kernel do with packets of its clients."""

    device: str
    isolate: bool
    """Packets from one client to another are dropped."""

    masquerade: bool
    """Packets that leave by another interface get its address."""


def _quoted(device: str) -> str:
    if not 0 < len(device) < 16 or not _DEVICE_CHARACTERS.issuperset(device):
        raise ValueError(f"{device!r} is no name of an interface that nft takes")
    return f'"{device}"'


def _anew(table: str) -> str:
    """Declared first so that deleting it cannot fail."""
    return f"table inet {table}\ndelete table inet {table}\n"


def removal(table: str) -> str:
    """Remove a table of ours, whether it is there or not."""
    return _anew(table)


def server_rules(forwarding: Forwarding) -> str:
    """Clamp the MSS of forwarded connections to what the path carries; isolate; masquerade."""
    device = _quoted(forwarding.device)
    isolation = f"iifname {device} oifname {device} drop" if forwarding.isolate else ""
    masquerade = ""
    if forwarding.masquerade:
        masquerade = f"""
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        iifname {device} oifname != {device} masquerade
    }}"""
    table = SERVER_TABLE + forwarding.device
    return f"""{_anew(table)}table inet {table} {{
    chain forward {{
        type filter hook forward priority filter; policy accept;
        {isolation}
        iifname {device} tcp flags syn tcp option maxseg size set rt mtu
        oifname {device} tcp flags syn tcp option maxseg size set rt mtu
    }}{masquerade}
}}
"""


def client_rules() -> str:
    """Give answers to our marked packets the same mark, so that a strict reverse path filter
    (rp_filter = 1, src_valid_mark = 1) looks them up as it does those we send."""
    return f"""{_anew(CLIENT_TABLE)}table inet {CLIENT_TABLE} {{
    chain prerouting {{
        type filter hook prerouting priority mangle; policy accept;
        ct mark {MARK:#x} meta mark set ct mark
    }}
    chain postrouting {{
        type filter hook postrouting priority mangle; policy accept;
        meta mark {MARK:#x} ct mark set meta mark
    }}
}}
"""
