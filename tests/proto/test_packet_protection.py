"""Trains sealed and opened against aioquic's packet by packet protection."""

import pytest
from aioquic.quic.crypto import CryptoContext, CryptoPair, next_key_phase
from aioquic.quic.packet import decode_packet_number
from aioquic.tls import CipherSuite
from hypothesis import given
from hypothesis import strategies as st

from tunnel_rs.proto.packet_protection import (
    MAX_PACKETS_PER_KEY,
    TrainOpener,
    TrainSealer,
    full_number,
    is_supported,
)

PEER_ID = b"peer's id"[:8]
SUITES = [CipherSuite.AES_128_GCM_SHA256, CipherSuite.AES_256_GCM_SHA384]


def keys(suite: CipherSuite = SUITES[0], seed: int = 1) -> CryptoContext:
    context = CryptoContext()
    context.setup(cipher_suite=suite, secret=bytes([seed]) * 48, version=1)
    return context


def sealed(
    data: bytes,
    *,
    number: int = 7,
    offset: int = 1000,
    step: int = 100,
    context: CryptoContext | None = None,
    key_phase: int = 0,
    spin: bool = False,
) -> tuple[bytes, TrainSealer]:
    sealer = TrainSealer(context or keys(), key_phase=key_phase, spin=spin, peer_id=PEER_ID)
    into = bytearray((len(data) // step + 1) * (step + 60))
    end = sealer.seal(
        memoryview(into), number, b"\x0c\x04", offset, memoryview(data), step, b"\x0d\x04"
    )
    return bytes(into[:end]), sealer


def segments(train: bytes, size: int) -> list[bytes]:
    return [train[start : start + size] for start in range(0, len(train), size)]


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("spin", [False, True])
def test_aioquic_opens_what_we_seal(suite: CipherSuite, spin: bool) -> None:
    context = keys(suite)
    data = bytes(range(250))
    train, sealer = sealed(data, context=context, spin=spin)
    size = sealer.overhead + 2 + 8 + 100
    packets = segments(train, size)
    assert [len(packet) for packet in packets] == [size, size, size - 50]
    offset = 1000
    for index, packet in enumerate(packets):
        header, frames, number, updated = context.decrypt_packet(packet, 9, 7 + index)
        assert number == 7 + index and not updated
        assert header[1:9] == PEER_ID and bool(header[0] & 0x20) == spin
        assert header[0] & 0xDF == 0x41
        last = index == len(packets) - 1
        assert frames[:2] == (b"\x0d\x04" if last else b"\x0c\x04")
        assert int.from_bytes(frames[2:10], "big") == offset | 0xC0 << 56
        length = min(100, 1250 - offset)
        assert frames[10:] == data[offset - 1000 : offset - 1000 + length]
        offset += length
    assert offset == 1250


@given(
    size=st.integers(1, 900),
    step=st.integers(1, 300),
    number=st.integers(0, 1 << 40),
    offset=st.integers(0, 1 << 61),
    data=st.data(),
)
def test_what_is_sealed_is_opened(
    size: int, step: int, number: int, offset: int, data: st.DataObject
) -> None:
    content = data.draw(st.binary(min_size=size, max_size=size))
    train, sealer = sealed(content, number=number, offset=offset, step=step)
    segment = sealer.overhead + 10 + min(step, size)
    opener = TrainOpener(keys(), 8)
    expected = number + data.draw(st.integers(-1000, 1000))
    opened, stopped = opener.open(memoryview(train), segment, max(0, expected))
    assert stopped == len(train)
    assert [at for at, _ in opened] == list(range(number, number + -(-size // step)))
    assert b"".join(frames[10:] for _, frames in opened) == content


def by_aioquic(context: CryptoContext, frames: bytes, number: int, first: int = 0x41) -> bytes:
    size = (first & 3) + 1
    header = bytes([first]) + PEER_ID + (number & (1 << 8 * size) - 1).to_bytes(size, "big")
    return context.encrypt_packet(header, frames, number)


@pytest.mark.parametrize("first", [0x40, 0x41, 0x42, 0x43, 0x63])
def test_packet_numbers_of_every_size_are_read(first: int) -> None:
    context = keys()
    train = b"".join(by_aioquic(context, bytes([i]) * 30, 300 + i, first) for i in range(3))
    opened, stopped = TrainOpener(context, 8).open(memoryview(train), len(train) // 3, 300)
    assert opened == [(300 + i, bytes([i]) * 30) for i in range(3)]
    assert stopped == len(train)


def test_a_packet_that_is_not_authentic_is_left_out() -> None:
    context = keys()
    packets = [by_aioquic(context, bytes([i]) * 30, i) for i in range(3)]
    spoilt = bytearray(packets[1])
    spoilt[-1] ^= 1
    train = packets[0] + bytes(spoilt) + packets[2]
    opened, stopped = TrainOpener(context, 8).open(memoryview(train), len(packets[0]), 0)
    assert [number for number, _ in opened] == [0, 2] and stopped == len(train)


@pytest.mark.parametrize(
    "odd",
    [
        lambda context: by_aioquic(context, bytes(30), 1, 0x41 | 0x08),
        lambda context: by_aioquic(context, bytes(30), 1, 0x41 | 0x10),
        lambda context: by_aioquic(next_key_phase(context), bytes(30), 1, 0x41 | 0x04),
        lambda context: b"\xc1" + by_aioquic(context, bytes(30), 1)[1:],
        lambda context: by_aioquic(context, bytes(30), 1)[:1] + bytes(8) + bytes(48),
    ],
    ids=["reserved bit", "other reserved bit", "key phase", "long header", "other id"],
)
def test_opening_stops_at_what_is_for_the_slow_path(odd: object) -> None:
    context = keys()
    assert callable(odd)
    packets = [by_aioquic(context, bytes(30), 0), odd(context), by_aioquic(context, bytes(30), 2)]
    size = len(packets[0])
    packets[1] = packets[1][:size].ljust(size, b"\0")
    opened, stopped = TrainOpener(context, 8).open(memoryview(b"".join(packets)), size, 0)
    assert (opened, stopped) == ([(0, bytes(30))], size)


def test_a_tail_that_is_too_short_is_left_for_the_slow_path() -> None:
    context = keys()
    packet = by_aioquic(context, bytes(30), 0)
    for tail in range(1, 28):
        train = memoryview(packet + packet[:tail])
        opened, stopped = TrainOpener(context, 8).open(train, len(packet), 0)
        assert len(opened) == 1 and stopped == len(packet)


@given(train=st.binary(max_size=400), size=st.integers(1, 400), expected=st.integers(0, 1 << 62))
def test_opening_never_raises(train: bytes, size: int, expected: int) -> None:
    opened, stopped = TrainOpener(keys(), 8).open(memoryview(train), size, expected)
    assert opened == [] and 0 <= stopped <= len(train)


@given(
    train=st.binary(min_size=400, max_size=400), size=st.integers(30, 200), cut=st.integers(0, 9)
)
def test_noise_with_our_id_never_raises(train: bytes, size: int, cut: int) -> None:
    noise = bytearray(train)
    for start in range(0, 390, size):
        noise[start + 1 : start + 9] = PEER_ID
    opened, stopped = TrainOpener(keys(), 8).open(memoryview(noise)[: 400 - cut], size, 0)
    assert opened == [] and 0 <= stopped <= 400


@given(
    number=st.integers(0, (1 << 61)),
    size=st.integers(1, 4),
    away=st.integers(-(1 << 31), 1 << 31),
)
def test_packet_numbers_are_what_aioquic_takes_them_for(number: int, size: int, away: int) -> None:
    expected = max(0, number + away)
    truncated = number & (1 << 8 * size) - 1
    found = full_number(truncated, size, expected)
    assert found == decode_packet_number(truncated, 8 * size, expected)
    assert found & (1 << 8 * size) - 1 == truncated
    if abs(number - expected) < 1 << (8 * size - 1):
        assert found == number


def test_the_example_of_the_rfc() -> None:
    """RFC 9000 appendix A.3."""
    assert full_number(0x9B32, 2, 0xA82F30EA + 1) == 0xA82F9B32


def test_keys_that_cannot_be_batched_are_left_alone() -> None:
    assert all(is_supported(keys(suite)) for suite in SUITES)
    assert not is_supported(keys(CipherSuite.CHACHA20_POLY1305_SHA256))
    assert not is_supported(CryptoPair().send)


def test_keys_are_updated_before_the_limit_of_the_cipher() -> None:
    """RFC 9001 section 6.6: 2^23 packets for AES-GCM."""
    assert MAX_PACKETS_PER_KEY < 1 << 23
