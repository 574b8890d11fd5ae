"""1-RTT packet protection when a connection has several paths (draft-ietf-quic-multipath section
2.4; spec `multipath.md` section 3).

All paths share the keys; a path's id goes into the nonce. After a key update packets of slower
paths still come under the old key, so that it is kept for a while.
"""

from typing import cast

from aioquic._crypto import CryptoError
from aioquic.quic.crypto import CryptoContext, CryptoPair, KeyUnavailableError, next_key_phase
from aioquic.quic.packet import decode_packet_number

PATH_ID_SHIFT = 64
"""Where the path id is in the 96-bit number that is combined with the IV."""

_KEY_PHASE = 0x04


class SharedKeys(CryptoPair):
    """aioquic's pair of 1-RTT keys, with the receive key before the last update. As it is, it
    protects path 0: there the nonce is that of plain QUIC."""

    previous: CryptoContext | None
    was_updated: bool
    """An update has happened since this was last set to False."""

    @classmethod
    def adopt(cls, pair: CryptoPair) -> "SharedKeys":
        """Turn aioquic's pair into ours; how it is made is aioquic's business."""
        pair.__class__ = cls
        shared = cast(SharedKeys, pair)
        shared.previous = None
        shared.was_updated = False
        return shared

    def _update_key(self, trigger: str) -> None:
        old, recv = CryptoContext(key_phase=self.recv.key_phase), self.recv
        old.aead, old.hp, old.secret = recv.aead, recv.hp, recv.secret
        old.cipher_suite, old.version = recv.cipher_suite, recv.version
        super()._update_key(trigger)
        self.previous = old
        self.was_updated = True

    def decrypt_packet(
        self, packet: bytes, encrypted_offset: int, expected_packet_number: int
    ) -> tuple[bytes, bytes, int]:
        return self.open(packet, encrypted_offset, expected_packet_number, 0)

    def open(
        self, packet: bytes, offset: int, expected: int, path_id: int
    ) -> tuple[bytes, bytes, int]:
        """Header, frames and number of a packet of the path; `offset` is that of its number.

        Raises CryptoError (KeyUnavailableError before there are keys) when it is not authentic.
        """
        recv = self.recv
        if recv.aead is None or recv.hp is None:
            raise KeyUnavailableError("Decryption key is not available")
        header, number = recv.hp.remove(packet, offset)
        number = decode_packet_number(number, ((header[0] & 3) + 1) * 8, expected)
        nonce = path_id << PATH_ID_SHIFT | number
        body = packet[len(header) :]
        if header[0] & _KEY_PHASE == recv.key_phase << 2:
            return header, recv.aead.decrypt(body, header, nonce), number
        if self.previous is not None and self.previous.aead is not None:
            try:
                return header, self.previous.aead.decrypt(body, header, nonce), number
            except CryptoError:
                pass  # then it is the next key's
        following = next_key_phase(recv)
        assert following.aead is not None
        frames = following.aead.decrypt(body, header, nonce)
        self._update_key("remote_update")
        return header, frames, number


class PathKeys:
    """The shared keys as one path other than the first sees them; has what aioquic uses of a
    `CryptoPair`."""

    __slots__ = ("_nonce", "_path_id", "_shared", "aead_tag_size", "recv", "send")

    def __init__(self, shared: SharedKeys, path_id: int) -> None:
        self._shared = shared
        self._path_id = path_id
        self._nonce = path_id << PATH_ID_SHIFT
        self.aead_tag_size = shared.aead_tag_size
        self.send, self.recv = shared.send, shared.recv  # updated in place

    @property
    def key_phase(self) -> int:
        return self._shared.key_phase

    def update_key(self) -> None:
        self._shared.update_key()

    def teardown(self) -> None:
        self._shared.teardown()

    def encrypt_packet(
        self, plain_header: bytes, plain_payload: bytes, packet_number: int
    ) -> bytes:
        return self._shared.encrypt_packet(plain_header, plain_payload, self._nonce | packet_number)

    def decrypt_packet(
        self, packet: bytes, encrypted_offset: int, expected_packet_number: int
    ) -> tuple[bytes, bytes, int]:
        return self._shared.open(packet, encrypted_offset, expected_packet_number, self._path_id)
