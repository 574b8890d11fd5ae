"""The part of `netcheck` that asks relays and discovery servers."""

import asyncio
import os
from collections.abc import Callable
from typing import NamedTuple

import aiohttp

from tunnel_rs.errors import TunnelError
from tunnel_rs.iroh.discovery_settings import DiscoverySettings
from tunnel_rs.iroh.netcheck_findings import Discovery, Relay
from tunnel_rs.iroh.pkarr_client import PkarrClient
from tunnel_rs.iroh.resolve import DnsResolver, PkarrResolver
from tunnel_rs.net.relay import RelayClient, RelayDown, RelayState, RelayUp
from tunnel_rs.net.relay_probe import probe
from tunnel_rs.net.relay_websocket import RelayClientSettings
from tunnel_rs.proto.pkarr import EndpointRecord, SignedPacket
from tunnel_rs.proto.raw_keys import Identity
from tunnel_rs.proto.relay_addr import RelayAddr, RelayUrl
from tunnel_rs.proto.relay_handshake import RelayIdentity
from tunnel_rs.values import Secret

LOGIN_TIMEOUT = 5.0
REQUEST_TIMEOUT = 4.0
DISCOVERY_TIMEOUT = 8.0

_PUBLISHED = EndpointRecord(("https://netcheck.invalid/",))
"""A relay that cannot exist (RFC 6761 section 6.4): the record has to name one to be looked up."""


class RelayAnswer(NamedTuple):
    """A relay, and its clock in seconds since 1970 at loop time `at`."""

    relay: Relay
    date: float | None
    at: float


class _Nowhere:
    """A sink for datagrams that nobody sends."""

    def receive_train(self, buffer: memoryview, segment_size: int, addr: RelayAddr) -> None:
        """A stranger cannot know our throw-away id."""

    def end_batch(self) -> None:
        """Nothing was kept."""


async def check_relay(
    relay: RelayUrl, session: aiohttp.ClientSession, settings: RelayClientSettings
) -> RelayAnswer:
    """Measure a relay, and log in with a throw-away key."""
    probed, refusal = await asyncio.gather(probe(relay, session), _log_in(relay, session, settings))
    let_in = refusal == ""
    found = Relay(relay.text, probed.latency, let_in, refusal or probed.problem)
    return RelayAnswer(found, probed.date, asyncio.get_running_loop().time())


async def _log_in(
    relay: RelayUrl, session: aiohttp.ClientSession, settings: RelayClientSettings
) -> str:
    """Why the relay does not let us in; empty when it does."""
    identity = Identity(Secret(os.urandom(32)))
    answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def on_state(state: RelayState) -> None:
        if not answer.done() and isinstance(state, RelayUp | RelayDown):
            answer.set_result("" if isinstance(state, RelayUp) else state.reason)

    client = RelayClient(
        relay,
        RelayIdentity(identity.endpoint_id, identity.private_key.sign),
        session,
        _Nowhere(),
        settings=settings,
        on_state=on_state,
    )
    client.start()
    try:
        async with asyncio.timeout(LOGIN_TIMEOUT):
            return await answer
    except TimeoutError:
        return f"no answer within {LOGIN_TIMEOUT:g} s"
    finally:
        await client.close()


async def check_discovery(
    settings: DiscoverySettings, clock: Callable[[], int]
) -> Discovery | None:
    """Publish a record under a throw-away key and look it up again; None without a server.
    `clock`: microseconds since 1970. Raises ConfigError for a CA file that is none."""
    if settings.publish_url is None:
        return None
    by = settings.resolve_url or f"DNS, {settings.dns_origin}"
    time = asyncio.get_running_loop().time
    packet = SignedPacket.for_record(Secret(os.urandom(32)), clock(), _PUBLISHED)
    publish_time: float | None = None
    began = time()
    async with PkarrClient(
        settings.publish_url, ca_file=settings.ca_file, timeout=REQUEST_TIMEOUT
    ) as client:
        try:
            async with asyncio.timeout(DISCOVERY_TIMEOUT):
                await client.put(packet)
                publish_time = time() - began
                began = time()
                record = await _look_up(settings, client, packet)
        except (TunnelError, TimeoutError) as error:
            problem = str(error) or f"it took longer than {DISCOVERY_TIMEOUT:g} s"
            return Discovery(settings.publish_url, by, publish_time, None, problem)
    if record != _PUBLISHED:
        problem = "another record was found than was published"
        return Discovery(settings.publish_url, by, publish_time, None, problem)
    return Discovery(settings.publish_url, by, publish_time, time() - began)


async def _look_up(
    settings: DiscoverySettings, client: PkarrClient, packet: SignedPacket
) -> EndpointRecord:
    if settings.resolve_url is not None or settings.dns_origin is None:
        return await PkarrResolver(client).look_up(packet.endpoint_id)
    resolver = DnsResolver(settings.dns_origin, nameservers=settings.nameservers)
    return await resolver.look_up(packet.endpoint_id)
