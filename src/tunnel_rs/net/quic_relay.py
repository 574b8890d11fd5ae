"""The relays of an endpoint as one more face of its `QuicEndpoint`. Addresses are `RelayAddr`."""

from typing import Any

from tunnel_rs.net.relay_face import RelayFace
from tunnel_rs.proto.engine import Address
from tunnel_rs.proto.relay_addr import RelayAddr

LARGEST_DATAGRAM = 1452
"""What iroh's side takes from a relay, whose frames could carry far more (spec `relay.md`)."""

_NO_ANSWER = "no answer through it; is the peer connected to this relay?"


class QuicRelayFace:
    """See `net.quic.Face`. The relays themselves are closed by who made them."""

    def __init__(self, relays: RelayFace) -> None:
        self._relays = relays

    def reaches(self, address: Address) -> bool:
        return isinstance(address, RelayAddr)

    def send_train(self, train: bytes | memoryview, segment_size: int, address: Any) -> bool:
        # What does not fit into a relay's queue is lost, as it would be on a full link. Held back
        # it would hold up the other relays too.
        self._relays.send_train(memoryview(train), segment_size, address)
        return True

    def text(self, address: Any) -> str:
        return str(address.url)

    def largest_datagram(self, address: Address) -> int:
        return LARGEST_DATAGRAM

    def receive_room(self) -> None:
        """Not known."""

    def validates(self, address: Address) -> bool:
        return False  # the relay has made the sender prove its key

    def error(self, address: Any) -> str:
        return self._relays.problem(address.url) or _NO_ANSWER

    def close(self) -> None:
        """The relays are to be drained first, and closed then: both take time."""
