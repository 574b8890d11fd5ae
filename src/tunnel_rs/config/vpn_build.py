"""Turn merged values into the frozen settings of the VPN."""

from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, IPv6Network
from typing import TypeVar

from tunnel_rs.config import schema, vpn_schema
from tunnel_rs.config.build import auth_token, endpoint_settings, secret_key, token_entries
from tunnel_rs.config.option import Option
from tunnel_rs.config.sources import Rank, Values
from tunnel_rs.errors import ConfigError
from tunnel_rs.iroh.settings import EndpointSettings
from tunnel_rs.proto.access import AccessList
from tunnel_rs.proto.grants import Grant
from tunnel_rs.proto.vpn_icmp import IPV6_MIN_MTU
from tunnel_rs.proto.vpn_nat64 import Nat64Settings
from tunnel_rs.proto.vpn_pool import check_pool, highest_free
from tunnel_rs.values import EndpointId
from tunnel_rs.vpn.settings import ClientSettings, Network, ServerSettings, Spoofing

I = TypeVar("I", IPv4Interface, IPv6Interface)  # noqa: E741
A = TypeVar("A", IPv4Address, IPv6Address)


@dataclass(frozen=True, slots=True)
class VpnServerConfig:
    """Everything `tunnel-rs-vpn server` runs with."""

    vpn: ServerSettings
    endpoint: EndpointSettings


@dataclass(frozen=True, slots=True)
class VpnClientConfig:
    """Everything `tunnel-rs-vpn client` runs with."""

    vpn: ClientSettings
    endpoint: EndpointSettings
    server: EndpointId


def build_vpn_server(values: Values) -> VpnServerConfig:
    """Check that a VPN server has all it needs, and read its key and token files.

    Raises UsageError or ConfigError for the first thing that is missing or wrong.
    """
    settings = vpn_server_settings(values)
    return VpnServerConfig(settings, endpoint_settings(values, secret_key(values)))


def vpn_server_settings(values: Values, *, running: bool = False) -> ServerSettings:
    """The part of the configuration that is the VPN's. Reads the token file; a `running` server may
    be left without a token: so the last client can be shut out."""
    get = values.get
    network, network6 = get(vpn_schema.NETWORK), get(vpn_schema.NETWORK6)
    if network is None and network6 is None:
        advice = ", for example 10.0.0.0/24"
        raise values.missing("network", vpn_schema.NETWORK, vpn_schema.NETWORK6, advice=advice)
    _check_mtu(values, network6 is not None)
    access = _access(values, running)
    settings = ServerSettings(
        access=access,
        network4=None if network is None else network.network,
        server4=get(vpn_schema.SERVER_IP),
        network6=None if network6 is None else network6.network,
        server6=get(vpn_schema.SERVER_IP6),
        device=get(vpn_schema.DEVICE),
        mtu=get(vpn_schema.MTU),
        max_clients=get(vpn_schema.MAX_CLIENTS),
        channel_size=get(vpn_schema.CHANNEL_SIZE),
        drop_on_full=get(vpn_schema.DROP_ON_FULL),
        spoofing=_spoofing(values),
        client_isolation=get(vpn_schema.CLIENT_ISOLATION),
        stable_addresses=get(vpn_schema.STABLE_ADDRESSES),
        allowed_destinations=get(vpn_schema.ALLOWED_DESTINATIONS) or None,
        forward=get(vpn_schema.FORWARD) or get(vpn_schema.MASQUERADE),
        masquerade=get(vpn_schema.MASQUERADE),
        resolvers=get(vpn_schema.PUSH_DNS),
        domains=get(vpn_schema.PUSH_DOMAINS),
        offload=get(vpn_schema.OFFLOAD),
    )
    _check_network(values, vpn_schema.NETWORK, vpn_schema.SERVER_IP)
    _check_network(values, vpn_schema.NETWORK6, vpn_schema.SERVER_IP6)
    return replace(settings, nat64=_nat64(values, settings))


def build_vpn_client(values: Values) -> VpnClientConfig:
    """Check that a VPN client has all it needs, and read its token file.

    Raises UsageError or ConfigError for the first thing that is missing or wrong.
    """
    get = values.get
    server = get(schema.SERVER_NODE_ID)
    if server is None:
        advice = " (the server prints it as EndpointId)"
        raise values.missing("server", schema.SERVER_NODE_ID, advice=advice)
    routes = (*get(vpn_schema.ROUTES), *get(vpn_schema.ROUTES6))
    _check_mtu(values, any(isinstance(route, IPv6Network) for route in routes))
    reconnect, attempts = get(vpn_schema.AUTO_RECONNECT), get(vpn_schema.MAX_ATTEMPTS)
    if attempts is not None and not reconnect:
        origin = values.origin(vpn_schema.MAX_ATTEMPTS)
        raise origin.error("has no meaning without auto_reconnect; leave one of them out")
    vpn = ClientSettings(
        auth_token=auth_token(values),
        routes=routes,
        device=get(vpn_schema.DEVICE),
        mtu=get(vpn_schema.MTU),
        reconnect=reconnect,
        max_attempts=attempts,
        connect_timeout=get(schema.CONNECT_TIMEOUT),
        kill_switch=get(vpn_schema.KILL_SWITCH),
        accept_dns=get(vpn_schema.ACCEPT_DNS),
        resolvers=get(vpn_schema.RESOLVERS),
        offload=get(vpn_schema.OFFLOAD),
    )
    return VpnClientConfig(vpn, endpoint_settings(values, None), server)


def _check_mtu(values: Values, ipv6: bool) -> None:
    mtu = values.get(vpn_schema.MTU)
    if ipv6 and mtu < IPV6_MIN_MTU:
        problem = f"{mtu} is too small for IPv6, which needs {IPV6_MIN_MTU} at least"
        raise values.origin(vpn_schema.MTU).error(problem)


def _check_network(
    values: Values, option: Option[I | None], server_option: Option[A | None]
) -> None:
    interface, server = values.get(option), values.get(server_option)
    if interface is None:
        if server is not None:
            problem = f"is set without {option.key}; set that, too"
            raise values.origin(server_option).error(problem)
        return
    network: Network = interface.network
    try:
        check_pool(network)
    except ValueError as error:
        raise values.origin(option).error(str(error)) from None
    try:
        check_pool(network, server)
    except ValueError as error:
        raise values.origin(server_option).error(str(error)) from None


def _access(values: Values, running: bool) -> AccessList:
    tokens = token_entries(values, required=not running)
    for entry in tokens:
        grant = entry.grant
        if grant != Grant(name=grant.name, expires=grant.expires):
            raise ConfigError(
                f"{entry.where}: a VPN knows name and expires only; tcp, udp, max-sessions and "
                "bandwidth are for `tunnel-rs server`"
            )
    return AccessList(tokens)


def _spoofing(values: Values) -> Spoofing:
    off = values.get(vpn_schema.NO_SPOOFING_CHECK)
    return Spoofing.OFF if off else values.get(vpn_schema.SPOOFING_CHECK)


def _nat64(values: Values, settings: ServerSettings) -> Nat64Settings | None:
    if not values.get(vpn_schema.NAT64_ENABLED):
        return None
    if settings.network6 is None:
        origin = values.origin(vpn_schema.NAT64_ENABLED)
        raise origin.error(f"NAT64 is for IPv6 clients; set {vpn_schema.NETWORK6.key}, too")
    first, last = values.get(vpn_schema.NAT64_PORTS)
    return Nat64Settings(
        _nat64_source(values, settings).packed,
        first,
        last,
        values.get(vpn_schema.NAT64_TCP),
        values.get(vpn_schema.NAT64_UDP),
        values.get(vpn_schema.NAT64_ICMP),
    )


def _nat64_source(values: Values, settings: ServerSettings) -> IPv4Address:
    source, network = values.get(vpn_schema.NAT64_SOURCE), settings.network4
    origin = values.origin(vpn_schema.NAT64_SOURCE)
    if source is None:
        if network is None:
            origin = values.origin(vpn_schema.NAT64_ENABLED)
            raise origin.error(
                "NAT64 needs an IPv4 address: set "
                f"{vpn_schema.NAT64_SOURCE.key}, or {vpn_schema.NETWORK.key}"
            )
        return highest_free(network, [settings.server4 or network[1]])
    assert origin.rank is not Rank.DEFAULT
    if source.is_unspecified or source.is_multicast or source == IPv4Address("255.255.255.255"):
        raise origin.error(f"{source} is not an address of one machine")
    if network is not None and source in network:
        taken = {network.network_address, network.broadcast_address}
        if source in taken or source == (settings.server4 or network[1]):
            raise origin.error(f"{source} is taken in {network}; choose another address")
    return source
