"""What we tell the world about where we are: our record, as home relay and addresses change."""

import asyncio
from collections.abc import Callable

from tunnel_rs.iroh.discovery_settings import DiscoverySettings
from tunnel_rs.iroh.pkarr_client import PkarrClient
from tunnel_rs.iroh.publish import Publisher, published_record
from tunnel_rs.net.tasks import TaskScope
from tunnel_rs.reports import Notice, Reporter
from tunnel_rs.values import Secret, SocketAddr

LOOK_EVERY = 30.0
"""Seconds between looks at our own addresses, when they are published."""


class Announcement:
    """Publishes the relay we are at home on and, if settings say so, our addresses.

    Spawn `run`; call `update` when something has changed.
    """

    def __init__(
        self,
        client: PkarrClient,
        secret_key: Secret[bytes],
        settings: DiscoverySettings,
        report: Reporter,
    ) -> None:
        self._publisher = Publisher(client, secret_key, report=report)
        self._direct = settings.publish_direct_addresses
        self._report = report
        self._home: str | None = None

    def update(self, home: str | None, addresses: tuple[SocketAddr, ...]) -> None:
        """We are at home on the relay `home`, and bound to `addresses`."""
        self._home = home
        try:
            record = published_record([home] if home else (), addresses, direct=self._direct)
        except ValueError as error:
            self._report(Notice("warning", f"our record cannot be published: {error}"))
        else:
            self._publisher.update(record)

    async def run(self, addresses: Callable[[], tuple[SocketAddr, ...]]) -> None:
        """Publish until cancelled; `addresses` gives our present ones."""
        async with TaskScope("announcement") as tasks:
            if self._direct:
                tasks.spawn(self._follow(addresses), "addresses")
            await self._publisher.run()

    async def _follow(self, addresses: Callable[[], tuple[SocketAddr, ...]]) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY)
            self.update(self._home, addresses())
