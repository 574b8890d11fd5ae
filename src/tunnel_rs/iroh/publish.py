"""Keeps our discovery record published (spec `discovery.md` section 3)."""

import asyncio
import time
from collections.abc import Callable, Iterable
from ipaddress import ip_address

from tunnel_rs.errors import TunnelError
from tunnel_rs.iroh.pkarr_client import PkarrClient
from tunnel_rs.proto.discovery_schedule import REPUBLISH_INTERVAL, WITHDRAW_AFTER, PublishSchedule
from tunnel_rs.proto.pkarr import EndpointRecord, SignedPacket, next_timestamp
from tunnel_rs.reports import Notice, Reporter, silent
from tunnel_rs.values import Secret, SocketAddr


def unix_microseconds() -> int:
    """The wall clock, microseconds since 1970."""
    return time.time_ns() // 1000


def published_record(
    relay_urls: Iterable[str],
    addresses: Iterable[SocketAddr] = (),
    *,
    direct: bool = False,
    user_data: str | None = None,
) -> EndpointRecord:
    """The record to publish: the relays we are connected to, and with `direct` those of our
    addresses that mean something elsewhere, as many as fit.

    Raises ValueError when relays and user data alone are too much.
    """
    chosen = _meaningful(addresses) if direct else ()
    return EndpointRecord(tuple(relay_urls), chosen, user_data).fitted()


def _meaningful(addresses: Iterable[SocketAddr]) -> tuple[SocketAddr, ...]:
    usable = []
    for address in dict.fromkeys(addresses):
        ip = ip_address(address.ip)
        if not (ip.is_unspecified or ip.is_multicast or ip.is_link_local or address.port == 0):
            usable.append(address)
    elsewhere = [address for address in usable if not ip_address(address.ip).is_loopback]
    return tuple(elsewhere or usable)


class Publisher:
    """Publishes the latest record: on change, every 300 s, again after failures.

    Spawn `run` as a task and call `update` with each change. Pass only relays that are connected.
    """

    def __init__(
        self,
        client: PkarrClient,
        secret_key: Secret[bytes],
        *,
        report: Reporter = silent,
        clock: Callable[[], int] = unix_microseconds,
        interval: float = REPUBLISH_INTERVAL,
        withdraw_after: float = WITHDRAW_AFTER,
    ) -> None:
        """`clock`: microseconds since 1970, for the packets' timestamps."""
        self._client = client
        self._secret_key = secret_key
        self._report = report
        self._clock = clock
        self._schedule = PublishSchedule(interval=interval, withdraw_after=withdraw_after)
        self._timestamp = 0
        self._changed = asyncio.Event()

    @property
    def published(self) -> EndpointRecord | None:
        """The record that is out; None while that is not known."""
        return self._schedule.published

    def update(self, record: EndpointRecord) -> None:
        """This is how we can be reached from now on."""
        self._schedule.update(record, asyncio.get_running_loop().time())
        self._changed.set()

    async def run(self) -> None:
        """Publish until cancelled. Failures are reported and retried, never raised."""
        loop = asyncio.get_running_loop()
        while True:
            self._changed.clear()
            due = self._schedule.next_attempt()
            if due is not None and due <= loop.time():
                await self._attempt()
                continue
            try:
                async with asyncio.timeout_at(due):
                    await self._changed.wait()
            except TimeoutError:
                pass

    async def _attempt(self) -> None:
        loop = asyncio.get_running_loop()
        record = self._schedule.begin()
        failures = self._schedule.failures
        try:
            self._timestamp = next_timestamp(self._timestamp, self._clock())
            packet = SignedPacket.for_record(self._secret_key, self._timestamp, record)
            await self._client.put(packet)
        except (TunnelError, ValueError) as error:
            self._schedule.failed(loop.time())
            level = "debug" if failures else "warning"
            self._report(Notice(level, f"not published, will be tried again: {error}"))
        else:
            self._schedule.succeeded(loop.time())
            level = "info" if failures else "debug"
            self._report(Notice(level, f"published at {self._client.base_url}"))
