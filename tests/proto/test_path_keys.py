"""Packet protection with paths: nonces, and the key before the last update."""

import pytest
from aioquic import tls
from aioquic._crypto import CryptoError
from aioquic.quic.crypto import CryptoPair, KeyUnavailableError
from hypothesis import given
from hypothesis import strategies as st

from tunnel_rs.proto.packet_protection import TrainOpener, TrainSealer
from tunnel_rs.proto.path_keys import PATH_ID_SHIFT, PathKeys, SharedKeys

SUITES = [
    tls.CipherSuite.AES_128_GCM_SHA256,
    tls.CipherSuite.AES_256_GCM_SHA384,
    tls.CipherSuite.CHACHA20_POLY1305_SHA256,
]
ID = bytes(range(8))
FRAMES = b"\x01" * 30


def keys(suite: tls.CipherSuite = SUITES[0]) -> tuple[SharedKeys, SharedKeys]:
    """Client's and server's ends of one connection."""
    size = 48 if suite is tls.CipherSuite.AES_256_GCM_SHA384 else 32
    ends = []
    for first, second in ((b"\x01", b"\x02"), (b"\x02", b"\x01")):
        pair = CryptoPair()
        pair.send.setup(cipher_suite=suite, secret=first * size, version=1)
        pair.recv.setup(cipher_suite=suite, secret=second * size, version=1)
        ends.append(SharedKeys.adopt(pair))
    return ends[0], ends[1]


def sealed(keys: PathKeys | SharedKeys, number: int, frames: bytes = FRAMES) -> bytes:
    header = bytes([0x43 | keys.key_phase << 2]) + ID + (number & 0xFFFFFFFF).to_bytes(4, "big")
    return keys.encrypt_packet(header, frames, number)


def test_the_nonce_is_that_of_the_drafts_example() -> None:
    """draft-ietf-quic-multipath section 2.4."""
    pair, _ = keys()
    aead = pair.send.aead
    assert aead is not None
    aead._iv = int("6b26114b9cba2b63a9e8dd4f", 16)
    assert aead._nonce(3 << PATH_ID_SHIFT | 0xAEAD).hex() == "6b2611489cba2b63a9e873e2"


@pytest.mark.parametrize("suite", SUITES)
@given(path=st.integers(1, (1 << 32) - 1), number=st.integers(0, (1 << 31) - 1))
def test_a_packet_opens_on_its_own_path_only(
    suite: tls.CipherSuite, path: int, number: int
) -> None:
    ours, theirs = keys(suite)
    packet = sealed(PathKeys(ours, path), number)
    assert PathKeys(theirs, path).decrypt_packet(packet, 9, number)[1:] == (FRAMES, number)
    for other in (theirs, PathKeys(theirs, path ^ 1 or 2)):
        with pytest.raises(CryptoError):
            other.decrypt_packet(packet, 9, number)


def test_the_first_path_is_plain_quic() -> None:
    ours, theirs = keys()
    plain = CryptoPair()
    plain.send, plain.recv = theirs.send, theirs.recv
    assert plain.decrypt_packet(sealed(ours, 5), 9, 5)[1:] == (FRAMES, 5)
    assert theirs.decrypt_packet(sealed(ours, 6), 9, 6)[1:] == (FRAMES, 6)
    assert PathKeys(theirs, 0).decrypt_packet(sealed(ours, 7), 9, 7)[1:] == (FRAMES, 7)


@pytest.mark.parametrize("path", [0, 1, 77])
def test_trains_of_a_path_and_its_single_packets_are_the_same_thing(path: int) -> None:
    ours, theirs = keys()
    sealer = TrainSealer(ours.send, key_phase=0, spin=False, peer_id=ID, path_id=path)
    into = memoryview(bytearray(3000))
    end = sealer.seal(into, 9, b"\x0c\x00", 0, memoryview(bytes(200)), 100, b"\x0c\x00")
    first = bytes(into[: end // 2])
    assert PathKeys(theirs, path).decrypt_packet(first, 9, 9)[2] == 9
    opener = TrainOpener(theirs.recv, len(ID), path)
    opened, stopped = opener.open(into[:end], end // 2, 9)
    assert [number for number, _ in opened] == [9, 10] and stopped == end
    other = TrainOpener(theirs.recv, len(ID), path + 1)
    assert other.open(into[:end], end // 2, 9)[0] == []


# Key updates


@pytest.mark.parametrize("path", [0, 2])
def test_packets_under_the_old_key_still_open_after_an_update(path: int) -> None:
    ours, theirs = keys()
    late = sealed(PathKeys(ours, path), 0)
    ours.update_key()
    newer = sealed(PathKeys(ours, 1), 0)
    assert PathKeys(theirs, 1).decrypt_packet(newer, 9, 0)[1] == FRAMES
    assert theirs.was_updated
    assert PathKeys(theirs, path).decrypt_packet(late, 9, 0)[1] == FRAMES


def test_the_old_key_can_be_dropped() -> None:
    ours, theirs = keys()
    late = sealed(ours, 0)
    ours.update_key()
    theirs.decrypt_packet(sealed(ours, 1), 9, 1)
    theirs.previous = None
    with pytest.raises(CryptoError):
        theirs.decrypt_packet(late, 9, 0)


def test_one_update_may_follow_the_other() -> None:
    ours, theirs = keys()
    for number in range(5):
        ours.update_key()
        assert theirs.decrypt_packet(sealed(ours, number), 9, number)[1] == FRAMES
    assert theirs.key_phase == ours.key_phase


def test_a_forged_packet_of_the_next_phase_updates_nothing() -> None:
    ours, theirs = keys()
    ours.update_key()
    packet = bytearray(sealed(ours, 0))
    packet[-1] ^= 1
    with pytest.raises(CryptoError):
        theirs.decrypt_packet(bytes(packet), 9, 0)
    assert theirs.previous is None and not theirs.was_updated


def test_an_update_that_a_path_asks_for_is_one_of_all() -> None:
    ours, _ = keys()
    path = PathKeys(ours, 4)
    before = path.key_phase
    path.update_key()
    assert path.key_phase == ours.key_phase != before
    sealed(path, 0)
    assert ours.previous is not None


def test_without_keys_a_packet_cannot_be_opened() -> None:
    ours, theirs = keys()
    packet = sealed(ours, 0)
    PathKeys(theirs, 1).teardown()
    with pytest.raises(KeyUnavailableError):
        theirs.decrypt_packet(packet, 9, 0)
