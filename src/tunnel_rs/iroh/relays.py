"""The relays of an endpoint: their connections, its home among them, and what happens to them."""

import asyncio
from collections.abc import Callable

from tunnel_rs.iroh.settings import EndpointSettings
from tunnel_rs.net.home_relay import HomeRelay
from tunnel_rs.net.quic import QuicEndpoint
from tunnel_rs.net.quic_relay import QuicRelayFace
from tunnel_rs.net.relay import RelayDown, RelayPeerGone, RelayProblem, RelayState, RelayUp
from tunnel_rs.net.relay_face import RelayFace
from tunnel_rs.net.relay_websocket import RelayClientSettings
from tunnel_rs.proto.engine import Address
from tunnel_rs.proto.relay_addr import RelayAddr, RelayUrl
from tunnel_rs.proto.relay_handshake import RelayIdentity
from tunnel_rs.reports import Notice, RelayLost, RelayOnline, Reporter

_DRAIN_TIMEOUT = 0.3
"""Seconds to hand the relays the last packets, which say goodbye."""


class EndpointRelays:
    """Makes relays one more way of a `QuicEndpoint` to send and receive.

    With `at_home` the endpoint can be found: it stays connected to the nearest of its relays.
    Without, relays are connected to when something is sent over them. Create it inside the event
    loop, `start`, `close`. Constructing raises ConfigError for a CA file that cannot be used.
    """

    def __init__(
        self,
        quic: QuicEndpoint,
        settings: EndpointSettings,
        report: Reporter,
        *,
        at_home: bool,
        on_home: Callable[[str | None], None] = lambda _: None,
        on_up: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_home` gets the URL of the home when it has let us in, None when it is lost. `on_up`
        is called when any relay has let us in."""
        self._quic = quic
        self._report = report
        self._on_home = on_home
        self._on_up = on_up
        self._urls = [relay.text for relay in settings.relays]
        self._known = {relay.text: relay for relay in settings.relays}
        self._told_failed: set[str] = set()
        self._online = asyncio.Event()
        identity = quic.identity
        self._face = RelayFace(
            RelayIdentity(identity.endpoint_id, identity.sign),
            quic,
            relays=settings.relays,
            settings=RelayClientSettings(ca_file=settings.relay_ca_file, mark=settings.mark),
            on_state=self._state_changed,
        )
        self._home = HomeRelay(self._face, settings.relays if at_home else (), self._home_changed)
        # Of public relays that cannot be reached one by one there is nothing to be repaired here.
        self._level = "warning" if at_home and not settings.public_relays else "debug"
        quic.add_face(QuicRelayFace(self._face))

    def start(self) -> None:
        """Look for a home, if there is to be one."""
        self._home.start()

    @property
    def home(self) -> str | None:
        """URL of the relay where we can be reached now."""
        return self._home.url

    @property
    def connected(self) -> tuple[RelayUrl, ...]:
        """The relays that have let us in, home first."""
        urls = sorted(self._face.connected, key=lambda url: url != self.home)
        return tuple(self._known.get(url) or RelayUrl(url) for url in urls)

    def network_changed(self) -> None:
        """Connections may be dead without a word, and what was out of reach may be near."""
        self._face.retry_now()
        self._home.network_changed()

    @property
    def problems(self) -> str:
        """Why each relay cannot be used now, in words."""
        problems = ((relay, self._face.problem(relay)) for relay in self._urls)
        return "; ".join(f"{relay}: {problem}" for relay, problem in problems if problem)

    async def wait_online(self) -> None:
        """Wait until a relay is our home and has let us in."""
        await self._online.wait()

    async def close(self) -> None:
        """Hand over what is queued, and leave all relays. Idempotent."""
        try:
            await self._home.close()
            async with asyncio.timeout(_DRAIN_TIMEOUT):
                await self._face.drain()
        except TimeoutError:
            pass
        finally:
            await self._face.close()

    def _home_changed(self, url: str | None) -> None:
        if url is None:
            self._online.clear()
        else:
            self._online.set()
            self._report(RelayOnline(url))
        self._on_home(url)

    def _state_changed(self, state: RelayState) -> None:
        if isinstance(state, RelayUp):
            self._told_failed.discard(state.url)
            self._quic.ask_peers(lambda address: _is_on(address, state.url))
            self._on_up()
        elif isinstance(state, RelayDown):
            self._quic.paths_lost(lambda address: _is_on(address, state.url))
            self._tell_down(state)
        elif isinstance(state, RelayProblem):
            text = state.text or "all is well again"
            self._report(Notice("warning" if state.text else "info", f"relay {state.url}: {text}"))
        elif isinstance(state, RelayPeerGone):
            gone = RelayAddr(state.url, state.peer)
            self._quic.ask_peers(lambda address: address == gone)
        self._home.state_changed(state)

    def _tell_down(self, state: RelayDown) -> None:
        """The first failure matters to people, its repetitions do not."""
        again = state.url in self._told_failed
        self._told_failed.add(state.url)
        if state.was_up:
            self._report(RelayLost(state.url, state.reason))
        else:
            level = "debug" if again else self._level
            self._report(Notice(level, f"relay {state.url}: {state.reason}; trying again"))


def _is_on(address: Address, url: str) -> bool:
    return isinstance(address, RelayAddr) and address.url == url
