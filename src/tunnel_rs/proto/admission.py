"""Who may open a connection: judgement on datagrams that belong to none.

Anybody can send those, from any address they care to write on them. What is kept for them is
bounded by the caller's counts; what is answered is stateless, smaller than what it answers, and
bounded in rate (RFC 9000 sections 6, 8.1, 10.3 and 21).
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass

from aioquic.quic.packet import QuicProtocolVersion, encode_quic_retry
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tunnel_rs.proto.engine import CONNECTION_ID_LENGTH, Address, ResetTokens
from tunnel_rs.proto.quic_packets import (
    Kind,
    Stray,
    classify,
    refusal,
    stateless_reset,
    version_negotiation,
)

MAX_CONNECTIONS = 1024
MAX_HANDSHAKES = 256
"""Handshakes in progress; beyond it newcomers are refused."""
RETRY_ABOVE = 64
"""Handshakes in progress from which on newcomers must prove their address first."""
BUSY = "server is busy"

ANSWERS_PER_SECOND = 1000
"""To first packets of newcomers: Retry and refusal."""
STRAY_ANSWERS_PER_SECOND = 100
"""To everything else: version negotiation and stateless reset. Of its own, so that junk cannot
use up the answers that let honest newcomers in."""

TOKEN_LIFETIME = 30.0
"""Seconds. Clients come back at once."""

_TOKEN_HEAD = struct.Struct("!dBB")
_NONCE = 12


@dataclass(frozen=True, slots=True)
class _Ticket:
    """What a Retry token of ours says."""

    issued: float
    original: bytes
    source: bytes
    address: bytes


class RetryTokens:
    """Seals what we need to know about a client that we send away (RFC 9000 section 8.1.4)."""

    def __init__(self, random_bytes: Callable[[int], bytes]) -> None:
        self._random_bytes = random_bytes
        self._aead = AESGCM(random_bytes(16))

    def seal(self, ticket: _Ticket) -> bytes:
        nonce = self._random_bytes(_NONCE)
        head = _TOKEN_HEAD.pack(ticket.issued, len(ticket.original), len(ticket.source))
        plain = head + ticket.original + ticket.source + ticket.address
        return nonce + self._aead.encrypt(nonce, plain, None)

    def open(self, token: bytes) -> _Ticket | None:
        """None when the token is not from here."""
        try:
            plain = self._aead.decrypt(token[:_NONCE], token[_NONCE:], None)
        except (InvalidTag, ValueError):
            return None
        issued, original, source = _TOKEN_HEAD.unpack_from(plain)
        rest = plain[_TOKEN_HEAD.size :]
        return _Ticket(
            issued,
            rest[:original],
            rest[original : original + source],
            rest[original + source :],
        )


@dataclass(frozen=True, slots=True)
class Newcomer:
    """Somebody who may open a connection. The ids are arguments of `Engine.server`."""

    destination: bytes
    """Where the client's packets go until it learns our id."""
    original: bytes
    retry_source: bytes | None


@dataclass(slots=True)
class _Budget:
    """Answers that may be given, refilled with time up to one second's worth."""

    per_second: int
    left: float
    refilled: float = 0.0

    def spend(self, now: float) -> bool:
        earned = max(0.0, now - self.refilled) * self.per_second
        self.left = min(self.per_second, self.left + earned)
        self.refilled = now
        if self.left < 1:
            return False
        self.left -= 1
        return True


class Admission:
    """`judge` every datagram of no connection. `random_bytes` is a source of secrets."""

    def __init__(
        self, reset_tokens: ResetTokens, random_bytes: Callable[[int], bytes], *, accepting: bool
    ) -> None:
        self._reset_tokens = reset_tokens
        self._random_bytes = random_bytes
        self._accepting = accepting
        self._tokens = RetryTokens(random_bytes)
        self._newcomers = _Budget(ANSWERS_PER_SECOND, ANSWERS_PER_SECOND)
        self._strays = _Budget(STRAY_ANSWERS_PER_SECOND, STRAY_ANSWERS_PER_SECOND)

    def judge(
        self,
        datagram: memoryview,
        address: Address,
        now: float,
        *,
        handshakes: int,
        connections: int,
        forgeable: bool,
    ) -> Newcomer | bytes | None:
        """A newcomer to accept, a datagram to answer with, or None to stay silent.

        `handshakes` and `connections` count what there is already; `forgeable` tells that anybody
        could have written `address`.
        """
        stray = classify(datagram)
        if stray.kind is Kind.INITIAL and self._accepting:
            if handshakes >= MAX_HANDSHAKES or connections >= MAX_CONNECTIONS:
                return refusal(stray, BUSY) if self._newcomers.spend(now) else None
            return self._admit(stray, address, now, forgeable, handshakes >= RETRY_ABOVE)
        if stray.kind is Kind.OTHER_VERSION and self._accepting:
            return version_negotiation(stray) if self._strays.spend(now) else None
        if stray.kind is Kind.SHORT:
            reset = stateless_reset(datagram, self._reset_tokens, self._random_bytes(26))
            if reset is not None and self._strays.spend(now):
                return reset
        return None

    def _admit(
        self, stray: Stray, address: Address, now: float, forgeable: bool, busy: bool
    ) -> Newcomer | bytes | None:
        ticket = self._tokens.open(stray.token) if stray.token else None
        if ticket is not None:
            # Also when it is quiet again: a client that was sent away insists that the server
            # remembers it (RFC 9000 section 7.3).
            if _fits(ticket, stray, address, now):
                return Newcomer(stray.destination, ticket.original, ticket.source)
            # Of a client that dials several of our addresses; another of them gave the token.
            return None
        if busy and forgeable:
            return self._ask_to_retry(stray, address, now) if self._newcomers.spend(now) else None
        return Newcomer(stray.destination, stray.destination, None)

    def _ask_to_retry(self, stray: Stray, address: Address, now: float) -> bytes:
        source = self._random_bytes(CONNECTION_ID_LENGTH)
        ticket = _Ticket(now, stray.destination, source, _address_bytes(address))
        return encode_quic_retry(
            version=QuicProtocolVersion.VERSION_1,
            source_cid=source,
            destination_cid=stray.source,
            original_destination_cid=stray.destination,
            retry_token=self._tokens.seal(ticket),
        )


def _address_bytes(address: Address) -> bytes:
    return repr(address).encode()


def _fits(ticket: _Ticket, stray: Stray, address: Address, now: float) -> bool:
    return (
        ticket.source == stray.destination
        and ticket.address == _address_bytes(address)
        and now - ticket.issued <= TOKEN_LIFETIME
    )
