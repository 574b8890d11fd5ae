"""Dialling a peer on all ways at once; the first valid answer wins."""

import asyncio
from collections.abc import Mapping, Sequence
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
        self._wrong_peer: WrongPeerError | None = None
        self._changed = asyncio.Event()

    async def run(self, timeout: float) -> QuicConnection:
        """The connection once its handshake has proved the peer.

        Raises PeerNotFoundError when no way found an address, WrongPeerError when only strangers
        answered, UnreachableError otherwise; each tells what was tried.
        """
        cancels = [way.find(self._peer, self._found) for way in self._ways]
        try:
            async with asyncio.timeout(timeout):
                return await self._first_answer()
        except TimeoutError:
            raise self._timed_out(timeout) from None
        finally:
            for cancel in cancels:
                cancel()
            if self._connection is not None and not _succeeded(self._connection):
                self._connection.close(0, "gave up")
                self._connection.discard()

    @property
    def names(self) -> Mapping[Address, str]:
        """What was found so far: addresses, and how to call them for people."""
        return self._texts

    def _found(self, address: Address, text: str) -> None:
        if address in self._texts or len(self._texts) >= MAX_CANDIDATES:
            return
        if not self._endpoint.reaches(address):
            return
        self._texts[address] = text
        self._report(Trying(text))
        if self._connection is not None:
            self._endpoint.add_candidate(self._connection, address)
        self._changed.set()

    async def _first_answer(self) -> QuicConnection:
        while True:
            candidates = [address for address in self._texts if address not in self._failures]
            if candidates:
                connection = await self._attempt(candidates)
                if connection is not None:
                    return connection
            elif self._failures and self._wrong_peer is not None:
                raise self._wrong_peer
            else:
                self._changed.clear()
                await self._changed.wait()

    async def _attempt(self, candidates: list[Address]) -> QuicConnection | None:
        """One handshake at all candidates. None when who answered first was no good: another
        attempt without that address may do better."""
        self._connection = self._endpoint.dial(self._peer, candidates, self._settings)
        try:
            await self._connection.handshaken
        except WrongPeerError as exc:
            self._wrong_peer = exc
            self._fail(self._connection, "another key answered")
            return None
        except LinkClosedError as exc:
            self._fail(self._connection, exc.reason or f"closed with code {exc.code:#x}")
            if all(address in self._failures for address in self._texts):
                raise UnreachableError(f"the server refused: {exc}") from exc
            return None
        return self._connection

    def _fail(self, connection: QuicConnection, why: str) -> None:
        self._failures[connection.engine.address] = why
        connection.discard()
        self._connection = None

    def _timed_out(self, timeout: float) -> TunnelError:
        if not self._texts:
            asked = "; ".join(f"{way.name}: {way.problem or 'nothing'}" for way in self._ways)
            return PeerNotFoundError(
                f"nobody with the id {self._peer.short}... was found in {timeout:g} s "
                f"({asked or 'there is no way to look for it'}); is the server running, and can "
                "both sides reach the same relay or network? Else name its address with --peer-addr"
            )
        tried = [f"{text}: {self._why(address)}" for address, text in self._texts.items()]
        tried += [f"{way.name}: {way.problem}" for way in self._ways if way.problem]
        return UnreachableError(
            f"the server did not answer within {timeout:g} s ({'; '.join(tried)})"
        )

    def _why(self, address: Address) -> str:
        return self._failures.get(address) or self._endpoint.problem(address) or "no answer"


def _succeeded(connection: QuicConnection) -> bool:
    handshaken = connection.handshaken
    return handshaken.done() and not handshaken.cancelled() and handshaken.exception() is None


def dialling(settings: TransportSettings, silence: float) -> TransportSettings:
    """Settings of the dialling side: it notices a silent peer, and reconnects."""
    return replace(settings, silence_timeout=silence)
