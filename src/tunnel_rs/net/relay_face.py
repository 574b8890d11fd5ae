"""All relays of an endpoint as one way to send and receive datagrams.

The QUIC shell uses it like a UDP socket whose addresses are `RelayAddr`. The home relay's
connection is kept; any other is opened by the first datagram sent to it, and closed when none has
been sent for a while (spec `relay.md` section 4).
"""

import asyncio
from collections.abc import Callable, Sequence

import aiohttp

from tunnel_rs.net.relay import DatagramSink, RelayClient, RelayState
from tunnel_rs.net.relay_websocket import RelayClientSettings, relay_session
from tunnel_rs.net.tasks import TaskScope
from tunnel_rs.proto.relay_addr import RelayAddr, RelayUrl
from tunnel_rs.proto.relay_client import IDLE_LIMIT
from tunnel_rs.proto.relay_handshake import RelayIdentity

MAX_RELAYS = 32
"""Relays connected to at one time; peers name relays, so their number is bounded."""


class RelayFace:
    """Datagrams over any number of relays.

    Create it inside the event loop, `close` it there. Constructing raises ConfigError when the CA
    file cannot be used.
    """

    def __init__(
        self,
        identity: RelayIdentity,
        sink: DatagramSink,
        *,
        relays: Sequence[RelayUrl] = (),
        settings: RelayClientSettings | None = None,
        on_state: Callable[[RelayState], None] = lambda _: None,
        idle_limit: float = IDLE_LIMIT,
    ) -> None:
        """`relays`: those whose access tokens are known; others can be sent to all the same.
        `idle_limit`: seconds after the last datagram sent."""
        self._identity = identity
        self._sink = sink
        self._settings = settings or RelayClientSettings()
        self._on_state = on_state
        self._idle_limit = idle_limit
        self._known = {relay.text: relay for relay in relays}
        self._loop = asyncio.get_running_loop()
        self._session: aiohttp.ClientSession = relay_session(self._settings)
        self._clients: dict[str, RelayClient] = {}
        self._kept: set[str] = set()
        self._closing = TaskScope("idle relays")
        self._sweep: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def session(self) -> aiohttp.ClientSession:
        """For other requests to the relays, such as measuring their latency."""
        return self._session

    @property
    def connected(self) -> list[str]:
        """URLs of the relays that have let us in, and so the only ones worth publishing."""
        return [url for url, client in self._clients.items() if client.is_up]

    def round_trip(self, url: str) -> float | None:
        """Latest measured round trip to a relay in seconds, None when not known."""
        client = self._clients.get(url)
        return client.round_trip if client else None

    def problem(self, url: str) -> str:
        """Why a relay cannot be used now; empty when it can."""
        client = self._clients.get(url)
        return client.problem if client else "not connected"

    def keep(self, url: str) -> None:
        """Connect to this relay and stay: it is our home, or the user named it. Raises ValueError
        for what is no relay URL, RuntimeError when there are too many or the face is closed."""
        relay = self._known.get(url) or RelayUrl.parse(url)
        if self._client(relay.text, matters=True) is None:
            raise RuntimeError(f"no room for the relay {relay.text}")
        self._kept.add(relay.text)

    def release(self, url: str) -> None:
        """No longer keep this relay: it is closed once nothing is sent to it any more."""
        self._kept.discard(url)
        client = self._clients.get(url)
        if client is not None:
            self._sweep_at(client.last_sent + self._idle_limit)

    async def wait_connected(self, url: str) -> None:
        """Wait until a relay has let us in; connects to it when there is no connection yet. Raises
        ValueError or RuntimeError as `keep`."""
        client = self._client((self._known.get(url) or RelayUrl.parse(url)).text)
        if client is None:
            raise RuntimeError(f"no room for the relay {url}")
        await client.wait_up()

    def retry_now(self) -> None:
        """The network changed: dial every relay that is down at once."""
        for client in self._clients.values():
            client.retry_now()

    def send_train(self, view: memoryview, segment_size: int, addr: RelayAddr) -> bool:
        """Send datagrams of `segment_size` bytes each, the last may be shorter. Copies them; never
        waits. False when they had to be dropped: no room, too many relays, no valid URL."""
        client = self._clients.get(addr.url) or self._client(addr.url)
        return client is not None and client.send(addr.endpoint_id, segment_size, view)

    async def drain(self) -> None:
        """Wait until all that was sent has been handed to the relays that are connected."""
        async with TaskScope("draining relays") as scope:
            for client in self._clients.values():
                scope.spawn(client.drain(), client.url)
            await scope.join()

    async def close(self) -> None:
        """Close every connection. Idempotent."""
        self._closed = True
        if self._sweep is not None:
            self._sweep.cancel()
        clients, self._clients = list(self._clients.values()), {}
        async with TaskScope("closing relays") as scope:
            for client in clients:
                scope.spawn(client.close(), client.url)
            await scope.join()
        await self._closing.join()
        await self._closing.aclose()
        await self._session.close()

    def _client(self, url: str, *, matters: bool = False) -> RelayClient | None:
        client = self._clients.get(url)
        if client is not None or self._closed:
            return client
        relay = self._relay(url)
        if relay is None or not self._make_room(matters):
            return None
        client = RelayClient(
            relay,
            self._identity,
            self._session,
            self._sink,
            settings=self._settings,
            on_state=self._on_state,
        )
        self._clients[url] = client
        client.start()
        self._sweep_at(client.last_sent + self._idle_limit)
        return client

    def _relay(self, url: str) -> RelayUrl | None:
        """None unless `url` is a relay URL in the normal form, for it is the key of everything."""
        known = self._known.get(url)
        if known is not None:
            return known
        try:
            relay = RelayUrl.parse(url)
        except ValueError:
            return None
        return relay if relay.text == url else None

    def _make_room(self, matters: bool) -> bool:
        """Peers' relays that cannot be reached give way; for our own home any of them does."""
        if len(self._clients) < MAX_RELAYS:
            return True
        others = [client for url, client in self._clients.items() if url not in self._kept]
        spare = [client for client in others if matters or not client.is_up]
        if spare:
            self._drop(min(spare, key=lambda client: client.last_sent))
        return bool(spare)

    def _drop(self, client: RelayClient) -> None:
        del self._clients[client.url]
        self._closing.spawn(client.close(), client.url)

    # Closing what is idle.

    def _sweep_at(self, when: float) -> None:
        if self._closed or (self._sweep is not None and self._sweep.when() <= when):
            return
        if self._sweep is not None:
            self._sweep.cancel()
        self._sweep = self._loop.call_at(when, self._close_idle)

    def _close_idle(self) -> None:
        self._sweep = None
        now, next_due = self._loop.time(), None
        for url, client in list(self._clients.items()):
            if url in self._kept:
                continue
            due = client.last_sent + self._idle_limit
            if due <= now:
                self._drop(client)
            else:
                next_due = due if next_due is None else min(next_due, due)
        if next_due is not None:
            self._sweep_at(next_due)
