"""Dialling a peer on all ways at once; the first valid answer wins."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace

from tunnel_rs.errors import (
    LinkClosedError,
    PeerNotFoundError,
    TunnelError,
    UnreachableError,
    WrongPeerError,
)
from tunnel_rs.iroh.ways import Way
from tunnel_rs.net.quic import QuicEndpoint
from tunnel_rs.net.quic_connection import QuicConnection
from tunnel_rs.proto.engine import Address
from tunnel_rs.proto.transport_settings import TransportSettings
from tunnel_rs.reports import Reporter, Trying
from tunnel_rs.values import EndpointId

MAX_CANDIDATES = 64
"""Addresses tried for one peer; hints from the network beyond that are ignored."""

GRACE = 1.0
"""Seconds from the start in which a way that still looks may find better than what has failed."""

STALL = 2.0
"""Seconds after which somebody who began to answer must have proved the key, when there are other
addresses to try; at most twice that pass."""

_MAX_LISTED = 8


class Dialler:
    """One attempt to reach `peer`. Use once: `await Dialler(...).run(timeout)`."""

    def __init__(
        self,
        endpoint: QuicEndpoint,
        peer: EndpointId,
        ways: Sequence[Way],
        settings: TransportSettings,
        report: Reporter,
    ) -> None:
        self._endpoint = endpoint
        self._peer = peer
        self._ways = ways
        self._settings = settings
        self._report = report
        self._texts: dict[Address, str] = {}
        self._failures: dict[Address, str] = {}
        self._connection: QuicConnection | None = None
        self._strangers: dict[Address, EndpointId] = {}
        self._changed = asyncio.Event()
        self._grace_ends = 0.0

    async def run(self, timeout: float) -> QuicConnection:
        """The connection once its handshake has proved the peer.

        Raises PeerNotFoundError when no way found an address, WrongPeerError when only strangers
        answered, UnreachableError otherwise; each tells what was tried. LinkClosedError when the
        endpoint was closed meanwhile.
        """
        self._grace_ends = asyncio.get_running_loop().time() + GRACE
        with ExitStack() as undo:
            undo.callback(self._drop)
            for way in self._ways:
                undo.callback(way.find(self._peer, self._found))
            try:
                async with asyncio.timeout(timeout):
                    connection = await self._first_answer()
            except TimeoutError:
                raise self._timed_out(timeout) from None
            self._connection = None  # it is the caller's now
            return connection

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close(0, "gave up")
            self._connection.discard()
            self._connection = None

    @property
    def names(self) -> Mapping[Address, str]:
        """What was found so far: addresses, and how to call them for people."""
        return self._texts

    def _found(self, address: Address, text: str) -> None:
        if address in self._texts or len(self._texts) >= MAX_CANDIDATES:
            return
        self._texts[address] = text
        if self._endpoint.reaches(address):
            self._report(Trying(text))
            if self._connection is not None:
                self._endpoint.add_candidate(self._connection, address)
        else:
            self._failures[address] = "we have no socket of that address family"
        self._changed.set()

    def _candidates(self) -> list[Address]:
        return [address for address in self._texts if address not in self._failures]

    async def _first_answer(self) -> QuicConnection:
        while True:
            candidates = self._candidates()
            if not candidates:
                await self._more_addresses()
            elif (connection := await self._attempt(candidates)) is not None:
                return connection

    async def _more_addresses(self) -> None:
        """Wait until a way has found something. Raises when all has failed that could be found."""
        self._changed.clear()
        patience = None
        if self._failures:
            looking = any(way.keeps_looking for way in self._ways)
            left = self._grace_ends - asyncio.get_running_loop().time()
            patience = max(0.0, left) if looking else 0.0
        try:
            async with asyncio.timeout(patience):
                await self._changed.wait()
        except TimeoutError:
            raise self._all_failed() from None

    async def _attempt(self, candidates: list[Address]) -> QuicConnection | None:
        """One handshake at all candidates. None when who answered first was no good: another
        attempt without that address may do better."""
        connection = self._endpoint.dial(self._peer, candidates, self._settings)
        self._connection = connection
        try:
            await self._handshake(connection)
        except WrongPeerError:
            if connection.engine.refused_peer is not None:
                self._strangers[connection.engine.address] = connection.engine.refused_peer
            self._fail("another key answered")
        except UnreachableError:
            self._connection = None  # no answer from anywhere yet: begin again
        except LinkClosedError as exc:
            if self._endpoint.is_closed:
                raise
            self._fail(f"refused: {exc}" if exc.by_peer else str(exc))
        return self._connection

    async def _handshake(self, connection: QuicConnection) -> None:
        """Raises what the handshake failed with, or LinkClosedError when somebody holds it up."""
        began = False
        while not connection.handshaken.done():
            await asyncio.wait([connection.handshaken], timeout=STALL)
            if connection.handshaken.done():
                break
            if began and len(self._candidates()) > 1:
                raise LinkClosedError(0, "it began to answer, then fell silent")
            began = connection.engine.is_pinned
        connection.handshaken.result()

    def _fail(self, why: str) -> None:
        """Never mind who answered."""
        if self._connection is not None:
            self._failures[self._connection.engine.address] = why
            self._drop()

    def _all_failed(self) -> TunnelError:
        if len(self._strangers) == len(self._failures):
            found = ", ".join(f"{self._texts[a]}: {key}" for a, key in self._strangers.items())
            return WrongPeerError(
                f"the machine that answered has another key ({found}); check the server's id"
            )
        return UnreachableError(f"no address of the server can be used ({self._tried()})")

    def _timed_out(self, timeout: float) -> TunnelError:
        if not self._texts:
            asked = ", ".join(_outcome(way) for way in self._ways) or "none"
            return PeerNotFoundError(
                f"nobody with the id {self._peer.short}... was found in {timeout:g} s "
                f"(asked: {asked}); is the server running, and is there a relay or network that "
                "both sides reach? Else name its address with --peer-addr"
            )
        return UnreachableError(f"the server did not answer within {timeout:g} s ({self._tried()})")

    def _tried(self) -> str:
        """Each address and why it did not do."""
        tried = [
            f"{text}: {self._failures.get(a) or self._endpoint.send_error(a) or 'no answer'}"
            for a, text in list(self._texts.items())[:_MAX_LISTED]
        ]
        if more := len(self._texts) - len(tried):
            tried.append(f"and {more} more")
        return ", ".join(tried + [_outcome(way) for way in self._ways if way.problem])


def _outcome(way: Way) -> str:
    return f"{way.name}: {way.problem}" if way.problem else way.name


def dialling(settings: TransportSettings, silence: float) -> TransportSettings:
    """Settings of the dialling side: it notices a silent peer, and reconnects."""
    return replace(settings, silence_timeout=silence)
