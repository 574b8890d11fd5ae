"""Client side of UDP: one flow, so one stream, for each local peer and source."""

import asyncio
from collections.abc import Callable, Hashable, Sequence
from functools import partial

from tunnel_rs.errors import TunnelError
from tunnel_rs.forward.local_tcp import ClientParts
from tunnel_rs.forward.sessions import Session
from tunnel_rs.forward.udp_flow import UdpFlow
from tunnel_rs.net.splice import SpliceEnd
from tunnel_rs.net.tasks import ScopeFullError
from tunnel_rs.reports import Notice
from tunnel_rs.values import SourceUrl

REFUSED_HOLD = 2.0
"""Seconds during which datagrams for a flow that was refused are dropped without asking again."""


class FlowTable:
    """The flows of one UDP socket, by a key that tells them apart; at most `limit` of them."""

    def __init__(self, parts: ClientParts, limit: int) -> None:
        self._parts = parts
        self._limit = limit
        self._flows: dict[Hashable, UdpFlow | None] = {}  # None: refused a moment ago
        self._holds: dict[Hashable, asyncio.TimerHandle] = {}
        self._told_full = False
        self._closed = False

    def __len__(self) -> int:
        return len(self._flows)

    def send(
        self,
        key: Hashable,
        source: SourceUrl,
        datagrams: Sequence[bytes],
        deliver: Callable[[bytes], object],
    ) -> None:
        """Pass on datagrams of the local peer `key`; what comes back goes to `deliver`, of which
        the one given with the first datagram of a flow is used."""
        if key not in self._flows and not self._begin(key, source, deliver):
            return
        flow = self._flows[key]
        if flow is not None:
            flow.send(datagrams)

    def close(self) -> None:
        """End all flows in order, and take no new ones."""
        self._closed = True
        for timer in self._holds.values():
            timer.cancel()
        for flow in list(self._flows.values()):
            if flow is not None:
                flow.close()
        self._flows.clear()

    def _begin(self, key: Hashable, source: SourceUrl, deliver: Callable[[bytes], object]) -> bool:
        session = None if self._is_full() else self._parts.sessions.take(source)
        if session is None:
            return False
        flow = UdpFlow(
            deliver,
            partial(self._ended, key, session),
            idle_timeout=self._parts.settings.udp_idle_timeout,
        )
        self._flows[key] = flow
        session.carried_by(flow)
        try:
            self._parts.tasks.spawn(self._open(key, flow, session), str(source))
        except ScopeFullError:
            flow.close()
            return False
        return True

    def _is_full(self) -> bool:
        full = len(self._flows) >= self._limit
        if full and not self._told_full:
            text = f"{self._limit} UDP flows are open; datagrams of new local peers are dropped"
            self._parts.report(Notice("warning", text))
        self._told_full = full
        return full or self._closed

    async def _open(self, key: Hashable, flow: UdpFlow, session: Session) -> None:
        try:
            dialogue = await self._parts.uplink.request(session.source)
        except TunnelError as error:
            flow.close()
            self._parts.refused(session.source, error)
            self._hold(key)
            return
        except BaseException:
            flow.close()
            raise
        if self._flows.get(key) is flow:
            session.opened()
        flow.attach(dialogue.stream, dialogue.hand_over, beside=dialogue.datagrams)

    def _ended(self, key: Hashable, session: Session, end: SpliceEnd) -> None:
        self._flows.pop(key, None)
        session.ended(end)

    def _hold(self, key: Hashable) -> None:
        if not self._closed and key not in self._flows:
            self._flows[key] = None
            loop = asyncio.get_running_loop()
            self._holds[key] = loop.call_later(REFUSED_HOLD, self._release, key)

    def _release(self, key: Hashable) -> None:
        del self._holds[key]
        self._flows.pop(key, None)
