"""Packets outside any connection: what a datagram is about, and the stateless answers to it."""

import enum
from dataclasses import dataclass

from aioquic._buffer import Buffer
from aioquic.quic.crypto import CryptoPair
from aioquic.quic.packet import (
    QuicErrorCode,
    QuicFrameType,
    QuicPacketType,
    QuicProtocolVersion,
    encode_quic_version_negotiation,
    pull_quic_header,
)
from aioquic.quic.packet_builder import QuicPacketBuilder

from tunnel_rs.proto.engine import CONNECTION_ID_LENGTH, DATAGRAM_SIZE, ResetTokens

_LONG_HEADER = 0x80
_VERSION = slice(1, 5)
_RESET_SIZE = 42
"""RFC 9000 section 10.3: a reset looks like a packet, and must be smaller than what caused it."""


class Kind(enum.Enum):
    """What to do with a datagram that belongs to no connection."""

    INITIAL = enum.auto()
    OTHER_VERSION = enum.auto()
    SHORT = enum.auto()
    JUNK = enum.auto()


@dataclass(frozen=True, slots=True)
class Stray:
    """The header of a datagram that belongs to no connection."""

    kind: Kind
    destination: bytes = b""
    source: bytes = b""
    token: bytes = b""


def destination_id(datagram: memoryview) -> bytes:
    """The destination connection id of the first packet (RFC 8999); empty when cut off."""
    if not datagram:
        return b""
    if not datagram[0] & _LONG_HEADER:
        return bytes(datagram[1 : 1 + CONNECTION_ID_LENGTH])
    if len(datagram) < 6:
        return b""
    return bytes(datagram[6 : 6 + datagram[5]])


def classify(datagram: memoryview) -> Stray:
    """Read the header of a datagram for which there is no connection. Never raises."""
    if not datagram or not datagram[0] & _LONG_HEADER:
        return Stray(Kind.SHORT if datagram else Kind.JUNK)
    if len(datagram) < DATAGRAM_SIZE:
        return Stray(Kind.JUNK)  # RFC 9000 section 14.1
    buffer = Buffer(data=bytes(datagram))
    version = int.from_bytes(datagram[_VERSION], "big")
    try:
        if version not in (QuicProtocolVersion.VERSION_1, QuicProtocolVersion.NEGOTIATION):
            return _of_other_version(buffer)
        header = pull_quic_header(buffer, CONNECTION_ID_LENGTH)
    except ValueError:
        return Stray(Kind.JUNK)
    if header.packet_type is QuicPacketType.INITIAL and len(header.destination_cid) >= 8:
        return Stray(Kind.INITIAL, header.destination_cid, header.source_cid, header.token)
    return Stray(Kind.JUNK)


def _of_other_version(buffer: Buffer) -> Stray:
    """Read what all versions share (RFC 8999 section 5.1)."""
    buffer.seek(_VERSION.stop)
    destination = buffer.pull_bytes(buffer.pull_uint8())
    source = buffer.pull_bytes(buffer.pull_uint8())
    return Stray(Kind.OTHER_VERSION, destination, source)


def version_negotiation(stray: Stray) -> bytes:
    """Tell a client of another version which one we speak (RFC 9000 section 6)."""
    return encode_quic_version_negotiation(
        source_cid=stray.destination,
        destination_cid=stray.source,
        supported_versions=[QuicProtocolVersion.VERSION_1],
    )


def refusal(stray: Stray, reason: str) -> bytes:
    """A CONNECTION_CLOSE in answer to an Initial, from which no state remains
    (CONNECTION_REFUSED, RFC 9000 section 20.1)."""
    crypto = CryptoPair()
    crypto.setup_initial(
        cid=stray.destination, is_client=False, version=QuicProtocolVersion.VERSION_1
    )
    builder = QuicPacketBuilder(
        host_cid=stray.destination[:CONNECTION_ID_LENGTH],
        peer_cid=stray.source,
        version=QuicProtocolVersion.VERSION_1,
        is_client=False,
        max_datagram_size=DATAGRAM_SIZE,
    )
    builder.start_packet(QuicPacketType.INITIAL, crypto)
    phrase = reason.encode()[:64].decode(errors="ignore").encode()
    buf = builder.start_frame(QuicFrameType.TRANSPORT_CLOSE, capacity=16 + len(phrase))
    buf.push_uint_var(QuicErrorCode.CONNECTION_REFUSED)
    buf.push_uint_var(QuicFrameType.PADDING)
    buf.push_uint_var(len(phrase))
    buf.push_bytes(phrase)
    datagrams, _ = builder.flush()
    return datagrams[0]


def stateless_reset(datagram: memoryview, tokens: ResetTokens, noise: bytes) -> bytes | None:
    """Answer a packet of a connection we do not have (RFC 9000 section 10.3). `noise` holds at
    least 26 random bytes. None when the packet is too small to answer."""
    if len(datagram) <= _RESET_SIZE:
        return None
    token = tokens.token(destination_id(datagram))
    return bytes([0x40 | noise[0] & 0x3F]) + noise[1:26] + token
