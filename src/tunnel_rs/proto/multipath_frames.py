"""Frames of QUIC multipath (draft-ietf-quic-multipath, final code points; spec `multipath.md`
section 2), and the transport parameter that allows them.

Encoders return the frame without its type, which packets are started with; decoders take a buffer
behind the type and leave it behind the frame. They raise BufferReadError when it is cut off.
"""

from dataclasses import dataclass
from enum import IntEnum

from aioquic._buffer import Buffer, BufferReadError

from tunnel_rs.errors import ProtocolError
from tunnel_rs.proto import varint

MAX_PATH_ID = (1 << 32) - 1
"""Path ids are the upper 32 bits of a nonce."""

RESET_TOKEN_SIZE = 16
_MAX_CONNECTION_ID = 20

INITIAL_MAX_PATH_ID = 0x3E
NAT_TRAVERSAL = 0x3D7F91120401
"""Transport parameters. The second is n0's: how many addresses of the peer are taken, one byte."""


class FrameType(IntEnum):
    """All are allowed in 1-RTT packets only."""

    PATH_ACK = 0x3E
    PATH_ACK_ECN = 0x3F
    PATH_ABANDON = 0x3E75
    PATH_STATUS_BACKUP = 0x3E76
    PATH_STATUS_AVAILABLE = 0x3E77
    PATH_NEW_CONNECTION_ID = 0x3E78
    PATH_RETIRE_CONNECTION_ID = 0x3E79
    MAX_PATH_ID = 0x3E7A
    PATHS_BLOCKED = 0x3E7B
    PATH_CIDS_BLOCKED = 0x3E7C


class PathError(IntEnum):
    """Why a path is abandoned, or a connection that has none left is closed."""

    NO_VIABLE_PATH = 0x10
    APPLICATION_ABANDON_PATH = 0x3E
    PATH_RESOURCE_LIMIT_REACHED = 0x3E75
    PATH_UNSTABLE_OR_POOR = 0x3E76
    NO_CID_AVAILABLE_FOR_PATH = 0x3E77


@dataclass(frozen=True, slots=True)
class MultipathParameters:
    """What a side says of paths in its transport parameters. None: it does not know the
    extension."""

    max_path_id: int | None = None
    addresses: int | None = None
    """How many candidates of the other side it keeps (NAT traversal)."""

    def encode(self) -> bytes:
        parts = []
        if self.max_path_id is not None:
            value = varint.encode(self.max_path_id)
            parts += [varint.encode(INITIAL_MAX_PATH_ID), varint.encode(len(value)), value]
        if self.addresses is not None:
            parts += [varint.encode(NAT_TRAVERSAL), b"\x01", bytes((self.addresses,))]
        return b"".join(parts)

    @classmethod
    def find(cls, parameters: bytes) -> "MultipathParameters":
        """Read them out of all encoded transport parameters. Raises ProtocolError for what the
        extensions forbid: one given twice, or of a wrong size."""
        buf = Buffer(data=parameters)
        found: dict[int, bytes] = {}
        try:
            while not buf.eof():
                kind, length = buf.pull_uint_var(), buf.pull_uint_var()
                value = buf.pull_bytes(length)
                if kind in (INITIAL_MAX_PATH_ID, NAT_TRAVERSAL):
                    if kind in found:
                        raise ProtocolError(f"the transport parameter {kind:#x} came twice")
                    found[kind] = value
        except BufferReadError:
            raise ProtocolError("the transport parameters are cut off") from None
        return cls(
            _max_path_id(found.get(INITIAL_MAX_PATH_ID)), _addresses(found.get(NAT_TRAVERSAL))
        )


def _max_path_id(value: bytes | None) -> int | None:
    if value is None:
        return None
    buf = Buffer(data=value)
    try:
        number = buf.pull_uint_var()
    except BufferReadError:
        raise ProtocolError("initial_max_path_id is cut off") from None
    if not buf.eof() or number > MAX_PATH_ID:
        raise ProtocolError("initial_max_path_id is malformed or too large")
    return number


def _addresses(value: bytes | None) -> int | None:
    if value is None:
        return None
    if len(value) != 1 or value == b"\0":
        raise ProtocolError("the NAT traversal parameter is not one byte from 1 to 255")
    return value[0]


@dataclass(frozen=True, slots=True)
class NewConnectionId:
    """PATH_NEW_CONNECTION_ID: the other side may use `connection_id` on a path."""

    path_id: int
    sequence: int
    retire_prior_to: int
    connection_id: bytes
    reset_token: bytes

    def encode(self) -> bytes:
        return b"".join(
            (
                varint.encode(self.path_id),
                varint.encode(self.sequence),
                varint.encode(self.retire_prior_to),
                bytes((len(self.connection_id),)),
                self.connection_id,
                self.reset_token,
            )
        )

    @classmethod
    def pull(cls, buf: Buffer) -> "NewConnectionId":
        """Raises ProtocolError for an id that is empty or longer than 20 bytes."""
        path_id, sequence, retire_prior_to = numbers(buf, 3)
        length = buf.pull_uint8()
        if not 1 <= length <= _MAX_CONNECTION_ID:
            raise ProtocolError("a connection id has 1 to 20 bytes")
        connection_id = buf.pull_bytes(length)
        return cls(
            path_id, sequence, retire_prior_to, connection_id, buf.pull_bytes(RESET_TOKEN_SIZE)
        )


def encode_numbers(*values: int) -> bytes:
    """Frames made of variable-length integers only: all but PATH_ACK and PATH_NEW_CONNECTION_ID.

    PATH_ABANDON: path id, error code. PATH_STATUS_*: path id, sequence number.
    PATH_RETIRE_CONNECTION_ID: path id, sequence number. MAX_PATH_ID and PATHS_BLOCKED: the maximum.
    PATH_CIDS_BLOCKED: path id, next sequence number.
    """
    return b"".join(map(varint.encode, values))


def numbers(buf: Buffer, count: int) -> tuple[int, ...]:
    """Read what `encode_numbers` writes."""
    return tuple(buf.pull_uint_var() for _ in range(count))
