"""aioice's agent, made to work with the original and with NATs as they are (spec `ice.md`
section 3): it nominates what will live, believes a nomination, tries longer, and is bounded.

It overrides private methods: `aioice>=0.13,<0.14`, checked by the tests of `net.ice_agent`.
"""

import asyncio
import struct
from collections.abc import Callable
from typing import Any

import aioice
from aioice import stun
from aioice.candidate import Candidate
from aioice.ice import CandidatePair, StunProtocol

PathKey = tuple[int, str, int]
"""A path to the peer: our protocol's number, and the peer's IP and port."""

RELAY_PATIENCE = 1.5
"""Seconds that direct paths get before relayed ones are tried: the first that works is used."""

CHECK_RETRANSMISSIONS = 3
"""A check is given up after 7.5 s and begun anew: aioice alone would wait up to 32 s between two
packets, while the user at the other side is still pasting."""

CHECK_PAUSE = 1.0
"""Seconds before a failed check is begun anew: an answer may also be an immediate no."""

CONSENT_INTERVAL = 5.0
CONSENT_LIFETIME = 30.0
"""RFC 7675 section 5.1. What is authenticated or decrypted counts as well as an answer: the
original does not answer on all of its sockets."""

MAX_REMOTE_CANDIDATES = 128
"""Including addresses that only showed up in checks."""

_LONGEST_STUN = 1500

PayloadSink = Callable[[PathKey, memoryview, int], None]
"""Gets trains that are not STUN: the path, the bytes, the size of each datagram but the last."""


class IceProtocol(StunProtocol):
    """STUN over one socket or relay allocation."""

    def __init__(self, connection: "IceConnection") -> None:
        super().__init__(connection)
        self._connection = connection

    def datagram_received(self, data: bytes | str, addr: tuple[Any, ...]) -> None:
        """One datagram of a relay. Sockets of our own sort theirs before."""
        assert isinstance(data, bytes)
        if is_stun(data[:1]):
            self.stun_received(data, addr)
        else:
            self._connection.payload(self, memoryview(data), len(data), addr)

    def stun_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        """A datagram that looks like STUN; nothing that is wrong in it raises."""
        if len(data) <= _LONGEST_STUN:
            try:
                super().datagram_received(data, addr)
            except struct.error:
                pass  # an attribute of a wrong size

    async def request(
        self,
        request: stun.Message,
        addr: tuple[str, int],
        integrity_key: bytes | None = None,
        retransmissions: int | None = None,
    ) -> tuple[stun.Message, tuple[str, int]]:
        if retransmissions is None:
            retransmissions = CHECK_RETRANSMISSIONS
        return await super().request(request, addr, integrity_key, retransmissions)


def is_stun(first: bytes | memoryview) -> bool:
    """Whether the first byte of a datagram is STUN's (RFC 9443 section 3)."""
    return len(first) > 0 and first[0] <= 3


class IceConnection(aioice.Connection):
    """One negotiation. Add protocols with `adopt`, call `connect`, then `nominated`."""

    def __init__(self, *, controlling: bool, username: str, password: str) -> None:
        super().__init__(controlling, local_username=username, local_password=password)
        self._loop = asyncio.get_running_loop()
        self._trusted: set[PathKey] = set()
        self._relays_from: float | None = None
        self._heard = self._loop.time()
        self._nominating_pair: CandidatePair | None = None
        self._failed: dict[CandidatePair, float] = {}
        self._local_candidates_start = True
        self._local_candidates_end = True
        self.sink: PayloadSink | None = None
        self.on_consent_lost: Callable[[], None] | None = None
        # The original closes every socket but one: regular nomination only picks that one.
        self.remote_is_lite = True

    def adopt(self, protocol: IceProtocol, *candidates: Candidate) -> None:
        """Use a protocol, whose `local_candidate` is set, and announce its candidates."""
        self._protocols.append(protocol)
        self._local_candidates.extend(candidates)

    def announce(self, candidate: Candidate) -> None:
        """Tell the peer about another address of a protocol that was adopted."""
        self._local_candidates.append(candidate)

    @property
    def nominated(self) -> CandidatePair | None:
        """The pair in use, once `connect` has returned."""
        return self._nominated.get(1)

    def trusts(self, path: PathKey) -> bool:
        """Whether the peer has proved, by the password of this session, to be at that address."""
        return path in self._trusted

    def payload(
        self, protocol: StunProtocol, train: memoryview, segment_size: int, addr: tuple[Any, ...]
    ) -> None:
        """Datagrams that are not STUN; those of strangers are dropped."""
        path = (protocol.id, addr[0], addr[1])
        if path in self._trusted and self.sink is not None:
            self._heard = self._loop.time()
            self.sink(path, train, segment_size)

    async def connect(self) -> None:
        """Negotiate until a pair is nominated: set a time limit around it."""
        self._heard = self._loop.time()
        self._relays_from = self._heard + RELAY_PATIENCE
        await super().connect()

    # What aioice calls.

    def data_received(self, data: bytes, component: int) -> None:
        """aioice would queue what it cannot read as STUN."""

    def request_received(
        self, message: stun.Message, addr: tuple[str, int], protocol: StunProtocol
    ) -> None:
        if protocol.local_candidate.type == "relay" and self._holds_relays():
            return  # asked again in a moment, unless a direct path has been found by then
        if message.message_method == stun.Method.BINDING and "PRIORITY" not in message.attributes:
            self.respond_error(message, addr, protocol, (400, "Bad Request"))
            return
        super().request_received(message, addr, protocol)

    def check_incoming(
        self, message: stun.Message, addr: tuple[str, int], protocol: StunProtocol
    ) -> None:
        known = any((c._network_host, c.port) == addr for c in self._remote_candidates)
        if not known and len(self._remote_candidates) >= MAX_REMOTE_CANDIDATES:
            return
        self._heard = self._loop.time()
        self._trust(protocol, addr)
        super().check_incoming(message, addr, protocol)
        if "USE-CANDIDATE" in message.attributes and not self.ice_controlling:
            self._believe_nomination(protocol, addr)

    def _believe_nomination(self, protocol: StunProtocol, addr: tuple[str, int]) -> None:
        """Use the pair that the controlling peer nominates even when our own check of it gets no
        answer; later nominations are stray."""
        if self._nominated:
            return
        for pair in self._check_list:
            if pair.protocol is protocol and pair.remote_addr == addr:
                if pair.task is not None:
                    pair.task.cancel()
                pair.nominated = True
                self.check_state(pair, CandidatePair.State.SUCCEEDED)
                self.check_complete(pair)
                return

    def build_request(self, pair: CandidatePair, nominate: bool) -> stun.Message:
        if nominate:
            self._nominating_pair = pair
        return super().build_request(pair, nominate)

    def check_complete(self, pair: CandidatePair) -> None:
        if pair.state is CandidatePair.State.SUCCEEDED:
            self._heard = self._loop.time()
            self._trust(pair.protocol, pair.remote_addr)
        elif pair.state is CandidatePair.State.FAILED and not self._check_list_done:
            pair.task = None
            self._failed[pair] = self._loop.time() + CHECK_PAUSE
            self._renominate(pair)
            return
        super().check_complete(pair)

    def _renominate(self, failed: CandidatePair) -> None:
        """When the chosen pair failed after all, let another one be chosen."""
        if failed is not self._nominating_pair:
            return
        self._nominating_pair = None
        self._nominating.discard(failed.component)
        for pair in self._check_list:
            if pair.state is CandidatePair.State.SUCCEEDED:
                pair.state = CandidatePair.State.WAITING

    def _check_periodic(self) -> bool:
        if self._check_list_done:
            return False
        self._revive()
        held = self._holds_relays()
        for state in (CandidatePair.State.WAITING, CandidatePair.State.FROZEN):
            for pair in self._check_list:
                if pair.state is state and pair.task is None and not (held and is_relayed(pair)):
                    self.check_start_task(pair)
                    return True
        return True  # until something is nominated or `connect` is cancelled

    def _revive(self) -> None:
        """Begin failed checks anew: the NAT in front of the peer may have opened meanwhile."""
        now = self._loop.time()
        for pair in [pair for pair, due in self._failed.items() if now >= due]:
            del self._failed[pair]
            if pair.state is CandidatePair.State.FAILED:
                pair.state = CandidatePair.State.WAITING

    def _holds_relays(self) -> bool:
        if self._relays_from is None:
            return True
        if self._loop.time() >= self._relays_from:
            return False
        return any(not is_relayed(pair) for pair in self._check_list)

    def _trust(self, protocol: StunProtocol, addr: tuple[str, int]) -> None:
        if len(self._trusted) < 2 * MAX_REMOTE_CANDIDATES:
            self._trusted.add((protocol.id, addr[0], addr[1]))

    async def query_consent(self) -> None:
        assert self.remote_password is not None
        key = self.remote_password.encode()
        while self._loop.time() - self._heard <= CONSENT_LIFETIME:
            await asyncio.sleep(CONSENT_INTERVAL)
            for pair in list(self._nominated.values()):
                request = self.build_request(pair, nominate=False)
                try:
                    await pair.protocol.request(request, pair.remote_addr, key, 0)
                    self._heard = self._loop.time()
                except stun.TransactionError:
                    pass
        if self.on_consent_lost is not None:
            self.on_consent_lost()


def is_relayed(pair: CandidatePair) -> bool:
    """Whether a TURN server stands between the ends of a pair."""
    return "relay" in (pair.local_candidate.type, pair.remote_candidate.type)
