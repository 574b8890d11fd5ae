"""Finds how a peer can be reached, by its EndpointId: over HTTP from a pkarr relay, or over DNS
(spec `discovery.md` sections 3 to 5).

HTTP answers carry the peer's signature, which is verified. DNS answers do not: they are hints, and
the handshake proves the key.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Protocol

import aiodns

from tunnel_rs.errors import PeerNotFoundError, ProtocolError, TunnelError
from tunnel_rs.iroh.discovery_settings import DiscoverySettings
from tunnel_rs.iroh.pkarr_client import PkarrClient
from tunnel_rs.net.marked_dns import MarkedDns
from tunnel_rs.proto.discovery_schedule import LOOKUP_DELAYS, LOOKUP_TIMEOUT, StaggeredLookup
from tunnel_rs.proto.dns_wire import RecordType, name_text, parse_name, read_strings
from tunnel_rs.proto.pkarr import EndpointRecord, record_name
from tunnel_rs.values import EndpointId, SocketAddr

if TYPE_CHECKING:
    import pycares

_LEAST_SERVER_TIMEOUT = 1.0
"""Seconds one DNS server has at least before the next is asked. The repeats of a look-up, not
c-ares, care for lost packets."""

_NOT_FOUND = (aiodns.error.ARES_ENOTFOUND, aiodns.error.ARES_ENODATA)


class Resolver(Protocol):
    """One way of finding peers."""

    def resolve(self, peer: EndpointId) -> AsyncIterator[EndpointRecord]:
        """Records as they are found, each naming at least one way to dial. Raises PeerNotFoundError
        when there is none, with the reason; breaking off early leaves nothing behind."""


class PkarrResolver:
    """Asks a pkarr relay."""

    def __init__(self, client: PkarrClient) -> None:
        self._client = client

    async def resolve(self, peer: EndpointId) -> AsyncIterator[EndpointRecord]:
        yield await self.look_up(peer)

    async def look_up(self, peer: EndpointId) -> EndpointRecord:
        """The peer's record. Raises PeerNotFoundError."""
        try:
            packet = await self._client.get(peer)
            record = packet.endpoint_record() if packet is not None else None
        except TunnelError as error:
            raise PeerNotFoundError(f"look-up failed: {error}") from None
        if record is None:
            raise PeerNotFoundError(f"{self._client.base_url} has no record of {peer.short}")
        if not record.names_a_way:
            raise PeerNotFoundError(
                f"{peer.short} is known at {self._client.base_url}, but connected to no relay now"
            )
        return record


class DnsResolver:
    """Asks the DNS, repeatedly as iroh does; the first answer that names a way wins."""

    def __init__(
        self,
        origin: str,
        *,
        nameservers: Sequence[SocketAddr] = (),
        delays: Sequence[float] = LOOKUP_DELAYS,
        timeout: float = LOOKUP_TIMEOUT,
    ) -> None:
        """`nameservers` empty: the system's. Times are seconds. Raises ValueError for an origin
        that is no domain name."""
        self._origin = parse_name(origin)
        self._nameservers = [str(server) for server in nameservers]
        self._delays = delays
        self._timeout = timeout

    async def resolve(self, peer: EndpointId) -> AsyncIterator[EndpointRecord]:
        yield await self.look_up(peer)

    async def look_up(self, peer: EndpointId) -> EndpointRecord:
        """The peer's record. Raises PeerNotFoundError."""
        name = name_text(record_name(peer) + self._origin)
        questions = _Questions(name, self._nameservers, await self._server_timeout())
        try:
            record, asked = await self._ask(questions)
        finally:
            await questions.close()
        if record is None:
            reasons = ", ".join(dict.fromkeys(questions.reasons)) or "no answer"
            raise PeerNotFoundError(
                f"no record of {peer.short} under {name_text(self._origin)} in the DNS:"
                f" {reasons} (asked {asked} times)"
            )
        return record

    async def _server_timeout(self) -> float:
        """Seconds each server has, so that all have been asked when a question times out."""
        count = len(self._nameservers)
        if not count:
            async with aiodns.DNSResolver() as resolver:
                count = len(resolver.nameservers)
        return max(self._timeout / max(count, 1), _LEAST_SERVER_TIMEOUT)

    async def _ask(self, questions: "_Questions") -> tuple[EndpointRecord | None, int]:
        loop = asyncio.get_running_loop()
        schedule = StaggeredLookup(loop.time(), delays=self._delays, timeout=self._timeout)
        while True:
            now = loop.time()
            for number in schedule.expire(now):
                await questions.drop(number)
            for number in schedule.start_due(now):
                questions.ask(number)
            event = schedule.next_event()
            if event is None:
                return None, schedule.sent
            for number in await questions.wait(event - loop.time()):
                record = await questions.take(number)
                if record is not None:
                    return record, schedule.sent
                schedule.failed(number)


class _Questions:
    """The questions of one look-up that are under way.

    Each has a resolver of its own: c-ares answers repeats from its cache, negative answers
    included, and cannot be told not to.
    """

    def __init__(self, name: str, nameservers: list[str], server_timeout: float) -> None:
        self._name = name
        self._server_timeout = server_timeout
        self._nameservers = nameservers
        self._pending: dict[int, tuple[asyncio.Future[pycares.DNSResult], aiodns.DNSResolver]] = {}
        self.reasons: list[str] = []
        """Why questions failed, in words."""

    def ask(self, number: int) -> None:
        resolver = aiodns.DNSResolver(
            nameservers=self._nameservers or None, timeout=self._server_timeout, tries=1
        )
        self._pending[number] = (resolver.query_dns(self._name, "TXT"), resolver)

    async def wait(self, timeout: float) -> list[int]:
        """Numbers of the questions that have ended, at the latest after `timeout` seconds."""
        futures = [future for future, _ in self._pending.values()]
        if not futures:
            await asyncio.sleep(max(timeout, 0))
            return []
        await asyncio.wait(futures, timeout=max(timeout, 0), return_when=asyncio.FIRST_COMPLETED)
        return [number for number, (future, _) in self._pending.items() if future.done()]

    async def take(self, number: int) -> EndpointRecord | None:
        """The record that a question which has ended brought, or None and a reason."""
        future, resolver = self._pending.pop(number)
        await resolver.close()
        try:
            record = self._read(future.result())
        except aiodns.error.DNSError as error:
            self.reasons.append(_dns_reason(error))
            return None
        except ProtocolError as error:
            self.reasons.append(str(error))
            return None
        if not record.names_a_way:
            self.reasons.append("the record names no way to reach it")
            return None
        return record

    def _read(self, result: "pycares.DNSResult") -> EndpointRecord:
        name = self._name.removesuffix(".")
        return EndpointRecord.from_strings(
            data
            for record in result.answer
            if record.type == RecordType.TXT and record.name.removesuffix(".").lower() == name
            # aiodns has joined the character strings of each record.
            if isinstance(data := getattr(record.data, "data", None), bytes)
        )

    async def drop(self, number: int) -> None:
        """Give up a question that has timed out."""
        self.reasons.append("no answer in time")
        await self._end(*self._pending.pop(number))

    async def close(self) -> None:
        """Give up all questions."""
        pending, self._pending = self._pending, {}
        for future, resolver in pending.values():
            await self._end(future, resolver)

    @staticmethod
    async def _end(
        future: "asyncio.Future[pycares.DNSResult]", resolver: aiodns.DNSResolver
    ) -> None:
        future.cancel()
        await resolver.close()


def _dns_reason(error: aiodns.error.DNSError) -> str:
    code = error.args[0] if error.args else None
    if code in _NOT_FOUND:
        return "no such name"
    if code == aiodns.error.ARES_ETIMEOUT:
        return "no answer in time"
    return str(error.args[1]).lower() if len(error.args) > 1 else "failed"


class MarkedDnsResolver:
    """Asks the DNS with packets that stay out of a VPN on this machine."""

    def __init__(self, origin: str, dns: MarkedDns) -> None:
        """Raises ValueError for an origin that is no domain name."""
        self._origin = parse_name(origin)
        self._dns = dns

    async def resolve(self, peer: EndpointId) -> AsyncIterator[EndpointRecord]:
        yield await self.look_up(peer)

    async def look_up(self, peer: EndpointId) -> EndpointRecord:
        """The peer's record. Raises PeerNotFoundError."""
        missing = f"no record of {peer.short} under {name_text(self._origin)} in the DNS"
        try:
            found = await self._dns.ask(record_name(peer) + self._origin, RecordType.TXT)
            record = EndpointRecord.from_strings(
                b"".join(read_strings(each.data)) for each in found
            )
        except TunnelError as error:
            raise PeerNotFoundError(f"{missing}: {error}") from None
        if not record.names_a_way:
            raise PeerNotFoundError(missing)
        return record


def make_resolver(
    settings: DiscoverySettings, client: PkarrClient | None, mark: int | None = None
) -> Resolver | None:
    """The resolver the settings ask for, None for none. `client` is for `resolve_url`, made by
    the caller, who closes it. `mark`: see `EndpointSettings`."""
    if settings.resolve_url is not None:
        if client is None:
            raise ValueError("a pkarr URL to resolve from needs a client")
        return PkarrResolver(client)
    if settings.dns_origin is not None and mark is not None:
        return MarkedDnsResolver(settings.dns_origin, MarkedDns(mark))
    if settings.dns_origin is not None:
        return DnsResolver(settings.dns_origin, nameservers=settings.nameservers)
    return None
