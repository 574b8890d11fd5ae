"""NAT traversal inside a connection: the frames (spec `multipath.md` section 2), and what the
engine must be told about addresses, which it does not look into otherwise.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import ip_address

from aioquic._buffer import Buffer

from tunnel_rs.proto import varint
from tunnel_rs.proto.nat_traversal import AddAddress, ReachOut, RemoveAddress
from tunnel_rs.proto.token_bucket import TokenBucket
from tunnel_rs.values import SocketAddr


class FrameType(IntEnum):
    """Frames of n0's extension; each address has two, for IPv4 and IPv6."""

    ADD_ADDRESS_V4 = 0x3D7F90
    ADD_ADDRESS_V6 = 0x3D7F91
    REACH_OUT_V4 = 0x3D7F92
    REACH_OUT_V6 = 0x3D7F93
    REMOVE_ADDRESS = 0x3D7F94


@dataclass(frozen=True, slots=True)
class Traversal:
    """What a connection needs for NAT traversal."""

    budget: TokenBucket
    """`nat_traversal.shared_budget`: probes of all connections of an endpoint are paid from it."""

    to_address: Callable[[SocketAddr], Hashable]
    """The engine's address of an IP address and port."""

    to_socket: Callable[[Hashable], SocketAddr | None]
    """The way back; None for what is no IP address, as a peer behind a relay."""

    reaches: Callable[[SocketAddr], bool]
    """Whether a socket of ours could send there."""

    random_bytes: Callable[[int], bytes]
    """Bytes fit for secrets, for example `os.urandom`."""


def encode(frame: AddAddress | RemoveAddress | ReachOut) -> tuple[int, bytes]:
    """Type and content of a frame."""
    if isinstance(frame, RemoveAddress):
        return FrameType.REMOVE_ADDRESS, varint.encode(frame.sequence)
    number = frame.sequence if isinstance(frame, AddAddress) else frame.number
    address = frame.address
    content = (
        varint.encode(number) + ip_address(address.ip).packed + address.port.to_bytes(2, "big")
    )
    kind = FrameType.ADD_ADDRESS_V4 if isinstance(frame, AddAddress) else FrameType.REACH_OUT_V4
    return kind + address.is_ipv6, content


def pull(kind: int, buf: Buffer) -> AddAddress | RemoveAddress | ReachOut:
    """Read the content of a frame of type `kind`. Raises BufferReadError when it is cut off."""
    number = buf.pull_uint_var()
    if kind == FrameType.REMOVE_ADDRESS:
        return RemoveAddress(number)
    is_ipv6 = kind in (FrameType.ADD_ADDRESS_V6, FrameType.REACH_OUT_V6)
    ip = ip_address(buf.pull_bytes(16 if is_ipv6 else 4))
    address = SocketAddr(str(ip), buf.pull_uint16())
    if kind in (FrameType.ADD_ADDRESS_V4, FrameType.ADD_ADDRESS_V6):
        return AddAddress(number, address)
    return ReachOut(number, address)
