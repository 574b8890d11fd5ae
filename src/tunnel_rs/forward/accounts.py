"""Who is connected to a server, and what each may use up."""

import asyncio
from collections.abc import Sequence
from itertools import count
from typing import Protocol

from tunnel_rs.net.expiry import Expiry
from tunnel_rs.net.link import Link
from tunnel_rs.net.throttle import burst_of
from tunnel_rs.proto.access import AccessList, Credential, Pass
from tunnel_rs.proto.grants import Grant
from tunnel_rs.proto.token_bucket import TokenBucket
from tunnel_rs.reports import PeerStatus, SessionStatus
from tunnel_rs.values import EndpointId


class Account:
    """What all who show one token, or come by one key, use together."""

    def __init__(self, grant: Grant) -> None:
        self.sessions = 0
        """Open ones."""
        self.limits: tuple[TokenBucket, TokenBucket] | None = None
        """Bytes to the clients, and from them; None: no limit."""
        self._loop = asyncio.get_running_loop()
        self.apply(grant)

    def apply(self, grant: Grant) -> None:
        """Use the limits of `grant` from now on. A bandwidth limit where there was none holds for
        sessions that begin later; one that was taken away is lifted for those too."""
        self.max_sessions = grant.max_sessions
        rate, now = grant.bandwidth, self._loop.time()
        for bucket in self.limits or ():
            # Sessions may hold on to a bucket that is no longer used.
            bucket.set_rate(rate or _NO_LIMIT, burst_of(rate or _NO_LIMIT), now)
        if rate is None:
            self.limits = None
        elif self.limits is None:
            burst = burst_of(rate)
            self.limits = TokenBucket(rate, burst, now), TokenBucket(rate, burst, now)

    @property
    def is_full(self) -> bool:
        return self.max_sessions is not None and self.sessions >= self.max_sessions


_NO_LIMIT = 1e15
"""Bytes a second."""


class Accounts:
    """The accounts of those in an access list, so at most as many as it has entries. They outlive
    connections: who connects again has the same one."""

    def __init__(self) -> None:
        self._accounts: dict[Credential, Account] = {}

    def __len__(self) -> int:
        return len(self._accounts)

    def of(self, held: Pass) -> Account:
        account = self._accounts.get(held.credential)
        if account is None:
            account = self._accounts[held.credential] = Account(held.grant)
        return account

    def keep(self, access: AccessList) -> None:
        """Forget the accounts of those who are no longer in the list."""
        kept: set[Credential] = {entry.credential for entry in access.entries}
        self._accounts = {key: a for key, a in self._accounts.items() if key in kept}


_numbers = count(1)


class Counted(Protocol):
    """A session, as far as it is counted."""

    @property
    def status(self) -> SessionStatus: ...


class Client:
    """One link of somebody who was let in."""

    def __init__(
        self, link: Link, held: Pass, account: Account, *, by_transport: bool = False
    ) -> None:
        """`by_transport`: let in by it, and so not judged by our access list."""
        self.number = next(_numbers)
        self.link = link
        self.held = held
        self.account = account
        self.by_transport = by_transport
        self.dismissal = ""
        """Why we ended the link, when we did."""
        self.expiry: Expiry | None = None
        self.sent = self.received = 0
        """Payload bytes of sessions that have ended."""
        self._loop = asyncio.get_running_loop()
        self._since = self._loop.time()

    @property
    def peer(self) -> EndpointId:
        return self.link.peer

    @property
    def name(self) -> str:
        return self.held.name

    @property
    def seconds(self) -> float:
        """Since it was let in."""
        return round(self._loop.time() - self._since, 3)

    def status(self, sessions: Sequence["Counted"]) -> PeerStatus:
        """`sessions` are those that are open."""
        statuses = tuple(session.status for session in sessions)
        return PeerStatus(
            self.peer,
            self.name,
            self.held.by,
            self.seconds,
            self.link.paths,
            self.sent + sum(status.sent for status in statuses),
            self.received + sum(status.received for status in statuses),
            statuses,
            self.number,
        )

    def begin(self) -> bool:
        """Count a session that begins; False when it would be one too many."""
        if self.account.is_full:
            return False
        self.account.sessions += 1
        return True

    def ended(self, sent: int, received: int) -> None:
        """A session has ended."""
        self.account.sessions -= 1
        self.sent += sent
        self.received += received
