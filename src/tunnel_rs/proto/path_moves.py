"""A client's moves to another address of its server (RFC 9000 section 9): one path at a time.

Call `probe` for an address the server may be reached at. Once it has answered from there, the
connection has moved: `address` tells. aioquic knows this for a server's preferred address; here it
is opened for any address, as often as needed. A server of ours follows its clients by itself.
"""

from collections.abc import Hashable

from aioquic._buffer import Buffer
from aioquic.quic.connection import QuicNetworkPath, QuicReceiveContext

from tunnel_rs.proto.stream_scheduler import StreamScheduler

PROBE_SIZE = 1200
"""UDP payload of a probe: what every path must carry (RFC 9000 sections 8.2.1 and 14)."""


class PathMoves(StreamScheduler):
    """The part of the engine that knows of more than one address."""

    _peer_allows_moves = True

    def probe(self, address: Hashable) -> bool:
        """Ask the server at `address`; when it answers, move there. Ask again by calling again.

        False when this cannot be done now: on a server, before the handshake is confirmed, at the
        present address, when the peer forbids it, or when it has given us no spare connection id
        (one must not be seen on two paths, RFC 9000 section 9.5).
        """
        if not self._can_move or self._network_paths[0].addr == address:
            return False
        path = next((path for path in self._network_paths if path.addr == address), None)
        if path is not None and path.peer_cid is None:
            self._network_paths.remove(path)  # where we were once: it is a new path now
            path = None
        if path is None:
            if not self._peer_cid_available:
                return False
            path = QuicNetworkPath(address)
            path.peer_cid = self._peer_cid_available.pop(0)
            self._add_network_path(path)
        path.local_challenge_sent = False
        return True

    def stop_probing(self) -> None:
        """Forget the addresses that have not answered yet."""
        for path in self._network_paths[1:]:
            if path.peer_cid is not None:
                self._network_paths.remove(path)
                self._retire_peer_cid(path.peer_cid)
                path.peer_cid = None

    @property
    def _can_move(self) -> bool:
        return (
            self._is_client
            and self._handshake_confirmed
            and self._peer_allows_moves
            and self._close_event is None
        )

    def probed_reset_tokens(self) -> list[bytes]:
        """Stateless reset tokens of the connection ids that probes were sent with."""
        ids = (path.peer_cid for path in self._network_paths[1:])
        return [id.stateless_reset_token for id in ids if id and id.stateless_reset_token]

    # aioquic's hooks

    def _handle_path_response_frame(
        self, context: QuicReceiveContext, frame_type: int, buf: Buffer
    ) -> None:
        before = self._network_paths[0]
        super()._handle_path_response_frame(context, frame_type, buf)
        if self._network_paths[0] is not before:
            # We have moved. A second answer must not move us again.
            self.stop_probing()

    def _send_probing_frames(
        self, network_path: QuicNetworkPath, now: float
    ) -> list[tuple[bytes, tuple[str, int]]]:
        # Filled up to what the present path carries, a probe could be too long for another.
        size, self._max_datagram_size = self._max_datagram_size, PROBE_SIZE
        try:
            return super()._send_probing_frames(network_path=network_path, now=now)
        finally:
            self._max_datagram_size = size
