"""What a VPN server and client are told to do. Built by `config`, frozen."""

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from tunnel_rs.proto.access import AccessList
from tunnel_rs.proto.vpn_nat64 import Nat64Settings
from tunnel_rs.values import Secret

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

DEFAULT_MTU = 1440


class Spoofing(StrEnum):
    """Which source addresses a client may use."""

    STRICT = "strict"
    """Its own only."""

    LOOSE = "loose"
    """Its own, and any that nobody in the VPN has."""

    OFF = "off"
    """Any."""


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """One VPN server. At least one of the two networks is set."""

    access: AccessList
    """Who may come in; of what a token grants only its name and its end count here."""

    network4: IPv4Network | None = None
    server4: IPv4Address | None = None
    """Our address in the network; None: its first host."""

    network6: IPv6Network | None = None
    server6: IPv6Address | None = None
    device: str | None = None
    """Name of the TUN device; None: one that is free."""

    mtu: int = DEFAULT_MTU
    """Most bytes of a packet that the device takes; it is cut up or refused above that."""

    max_clients: int = 254
    channel_size: int = 1024
    """Packets for a client that may wait beyond what is on its way to it."""

    drop_on_full: bool = False
    """Whether packets for a client that does not keep up are dropped at once. Else all wait for
    it a moment, then they are dropped, too."""

    spoofing: Spoofing = Spoofing.STRICT
    client_isolation: bool = True
    """Whether packets from one client to another are dropped."""

    stable_addresses: bool = True
    """Whether the holder of a token gets the same address every time."""

    allowed_destinations: tuple[Network, ...] | None = None
    """Where clients may send to, besides the server's own addresses; None: anywhere."""

    forward: bool = False
    """Whether to have the kernel forward packets of clients to other networks."""

    masquerade: bool = False
    """Whether those packets get the address of the interface they leave by."""

    nat64: Nat64Settings | None = None
    resolvers: tuple[Address, ...] = ()
    """Told to clients: the resolvers of the VPN."""

    domains: tuple[str, ...] = ()
    """Told to clients: the names those are for; none: all."""

    offload: bool = True
    """Whether to exchange super-packets with clients that can."""

    auth_timeout: float = 10.0
    """Seconds a new connection has to authenticate."""


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """One VPN client."""

    auth_token: Secret[str] | None
    routes: tuple[Network, ...] = ()
    """What goes into the VPN besides its own network. 0.0.0.0/0 and ::/0: everything."""

    device: str | None = None
    mtu: int = DEFAULT_MTU
    reconnect: bool = True
    max_attempts: int | None = None
    """Attempts in a row that may fail before giving up; None: any number."""

    connect_timeout: float = 10.0
    kill_switch: bool = False
    """Whether what the routes cover stays blocked when this process is killed."""

    accept_dns: bool = True
    """Whether to use the resolvers that the server names."""

    resolvers: tuple[Address, ...] = ()
    """Resolvers to use instead of those the server names."""

    offload: bool = True
