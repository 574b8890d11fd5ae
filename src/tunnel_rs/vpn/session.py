"""One client of a VPN server: its addresses, its channel, and what it may send."""

from dataclasses import dataclass, field
from ipaddress import ip_address
from itertools import count

from tunnel_rs.net.expiry import Expiry
from tunnel_rs.net.link import Link
from tunnel_rs.proto.access import Pass
from tunnel_rs.proto.vpn_packets import is_link_local, is_multicast
from tunnel_rs.vpn.channel import PacketChannel
from tunnel_rs.vpn.pools import Leases
from tunnel_rs.vpn.settings import Network, Spoofing
from tunnel_rs.vpn.traffic import Traffic

Key = tuple[bytes, int]
"""The client's public key and its device id."""

_MAX_JUDGED = 4096
_numbers = count(1)


@dataclass(eq=False, slots=True)
class Session:
    """A client that was let in. `channel` is there once its data stream is."""

    key: Key
    link: Link
    leases: Leases
    offload: bool
    """Whether both ends take super-packets."""

    since: float
    traffic: Traffic
    held: Pass
    """What it was let in by."""

    channel: PacketChannel | None = None
    number: int = field(default_factory=lambda: next(_numbers))
    """Tells it from others of the same client."""

    dismissal: str = ""
    """Why we ended its link, when we did."""

    expiry: Expiry | None = None
    stalled: bool = False
    """Others have waited for it long enough: what it cannot take is dropped."""

    def has(self, address: str) -> bool:
        """Whether `address`, in any spelling, is its in the VPN."""
        try:
            return ip_address(address).packed in self.leases.packed
        except ValueError:
            return False


class DestinationPolicy:
    """Which addresses clients may send to. What it has judged it remembers, within a bound."""

    def __init__(self, allowed: tuple[Network, ...] | None) -> None:
        self._allowed = allowed
        self._judged: dict[bytes, bool] = {}

    def allows(self, destination: bytes) -> bool:
        """`destination`: 4 or 16 bytes."""
        if self._allowed is None:
            return True
        verdict = self._judged.get(destination)
        if verdict is None:
            address = ip_address(destination)
            verdict = any(address in network for network in self._allowed)
            if len(self._judged) >= _MAX_JUDGED:
                self._judged.clear()
            self._judged[destination] = verdict
        return verdict


def why_not(source: bytes, own: tuple[bytes, ...], taken: bool, spoofing: Spoofing) -> str | None:
    """Why a packet from `source` may not pass; None when it may. `taken`: somebody else in the
    VPN has that address."""
    if spoofing is Spoofing.OFF or source in own:
        return None
    if is_link_local(source):
        return "link-local"
    if spoofing is Spoofing.LOOSE and not taken and not is_multicast(source):
        return None
    return "spoofed"
