"""Tests of `tunnel_rs.vpn.channel`."""

import asyncio
from typing import Any

import pytest
from tests.support.ip_packets import burst, packed, tcp, udp
from tests.support.memory_link import MemoryStream, Sizes, link_pair
from tests.support.recorder import Recorder
from tests.support.sockets import until

from tunnel_rs.errors import ProtocolError, TunnelError
from tunnel_rs.proto.checksum import partial_sum
from tunnel_rs.proto.vpn_frames import PING, PONG, offload_frame, packet_frame
from tunnel_rs.proto.vpn_heartbeat import Heartbeat
from tunnel_rs.proto.vpn_offload import NO_OFFLOAD
from tunnel_rs.vpn.channel import PacketChannel
from tunnel_rs.vpn.traffic import Traffic

PACKET = udp("10.0.0.2", "10.0.0.1", (1, 2), b"hello")


class Bench:
    """A channel, and the other end of its stream."""

    def __init__(self, channel_end: MemoryStream, other: Recorder, **options: Any) -> None:
        self.other = other
        self.packets: list[tuple[bytes, bytes]] = []
        self.ends: list[TunnelError] = []
        self.resumed = 0
        self.traffic = Traffic()
        now = asyncio.get_running_loop().time()
        fields: dict[str, Any] = {
            "heartbeat": Heartbeat(now, patience=30.0, interval=10.0),
            "offload": False,
            "answers_pings": True,
            **options,
        }
        self.channel = PacketChannel(
            channel_end,
            traffic=self.traffic,
            on_packets=self.packets.extend,
            on_end=self.ends.append,
            on_resume=self._resume,
            **fields,
        )

    def _resume(self) -> None:
        self.resumed += 1


async def bench(sizes: Sizes | None = None, **options: Any) -> Bench:
    client, server = link_pair(sizes)
    stream = await client.open_stream()
    stream.write(PING)
    theirs = await server.accept_stream()
    made = Bench(stream, Recorder(theirs), **options)
    await until(lambda: bytes(made.other.data) == PING)
    made.other.data.clear()
    return made


def super_packet(size: int) -> tuple[bytes, bytes]:
    packet = tcp("10.0.0.2", "10.0.0.1", (1, 2), bytes(size))
    total = (partial_sum(packet[12:20]) + 6 + len(packet) - 20) % 65535
    packet = packet[:36] + total.to_bytes(2, "big") + packet[38:]
    return b"\x01\x01\0\0\xe8\x03\x14\x00\x10\x00", packet  # segments of 1000 bytes


async def test_it_pings_at_once_when_it_is_the_side_that_pings() -> None:
    made = await bench()
    made.channel.start()
    await until(lambda: bytes(made.other.data) == PING)


async def test_a_batch_of_packets_is_one_write() -> None:
    made = await bench()
    stream = made.other.stream.twin
    assert stream is not None
    stream.writes.clear()
    made.channel.send([(NO_OFFLOAD, PACKET)] * 3)
    assert len(stream.writes) == 1
    await until(lambda: bytes(made.other.data) == packet_frame(PACKET) * 3)
    assert (made.traffic.sent_packets, made.traffic.sent_bytes) == (3, 3 * len(PACKET))


async def test_packets_and_pings_that_come() -> None:
    made = await bench(heartbeat=Heartbeat(0.0, patience=1e9))
    made.channel.start()
    made.other.stream.write(PING + packet_frame(PACKET) + PING)
    await until(lambda: bytes(made.other.data) == PONG)
    assert made.packets == [(NO_OFFLOAD, PACKET)]
    assert made.traffic.received_packets == 1
    assert made.other.stream.twin is not None and made.other.stream.twin.unconsumed == 0


async def test_who_asks_does_not_answer() -> None:
    made = await bench(answers_pings=False, heartbeat=Heartbeat(0.0, patience=1e9))
    made.channel.start()
    made.other.stream.write(PING + packet_frame(PACKET))
    await until(lambda: bool(made.packets))
    assert made.other.data == b""


async def test_super_packets_pass_whole_when_both_ends_take_them() -> None:
    header, packet = super_packet(2500)
    made = await bench(offload=True, heartbeat=Heartbeat(0.0, patience=1e9))
    made.channel.start()
    made.channel.send([(header, packet)])
    await until(lambda: bytes(made.other.data) == offload_frame(header, packet))
    made.other.stream.write(offload_frame(header, packet))
    await until(lambda: made.packets == [(header, packet)])


async def test_else_they_are_cut_up() -> None:
    made = await bench()
    made.channel.send([super_packet(2500)])
    await until(lambda: len(made.other.data) > 2500)
    assert made.traffic.sent_packets == 3
    made.channel.send([(super_packet(2500)[0], PACKET)])
    assert made.traffic.dropped == {"offload": 1}


@pytest.mark.parametrize("sent", [b"\x04", b"\x07", b"\0\0\1\0\1", b"\0\xff\xff\xff\xff"], ids=repr)
async def test_what_breaks_the_framing_ends_it(sent: bytes) -> None:
    made = await bench(heartbeat=Heartbeat(0.0, patience=1e9))
    made.channel.start()
    made.other.stream.write(sent)
    await until(lambda: bool(made.ends))
    assert isinstance(made.ends[0], ProtocolError)
    await until(lambda: made.other.events == ["reset 0", "stop 0"])


async def test_small_packets_are_joined_for_an_address_that_ends_here() -> None:
    packets = burst(("10.0.0.2", "10.0.0.1"), [bytes(1000)] * 3)
    elsewhere = burst(("10.0.0.2", "10.0.0.7"), [bytes(1000)] * 3)
    here = (packed("10.0.0.1"),)
    made = await bench(ends_here=here, heartbeat=Heartbeat(0.0, patience=1e9))
    made.channel.start()
    made.other.stream.write(b"".join(map(packet_frame, packets + elsewhere)))
    await until(lambda: len(made.packets) == 4)
    assert [len(packet) for _, packet in made.packets] == [3052, 1052, 1052, 1052]
    assert made.packets[0][0] is not NO_OFFLOAD
    assert made.traffic.received_packets == 6
    assert made.traffic.received_bytes == 6 * 1052


async def test_a_forged_super_packet_ends_it() -> None:
    made = await bench(offload=True, heartbeat=Heartbeat(0.0, patience=1e9))
    made.channel.start()
    made.other.stream.write(offload_frame(b"\x01\x01\0\0\0\0\0\0\0\0", PACKET))
    await until(lambda: bool(made.ends))
    assert made.packets == []


async def test_silence_ends_it() -> None:
    made = await bench(heartbeat=Heartbeat(-1e9, patience=30.0))
    made.channel.start()
    assert [str(end) for end in made.ends] == ["no sign of life from the peer"]


@pytest.mark.parametrize("end", ["eof", "reset", "stop", "lose"])
async def test_however_it_ends_it_is_told_once(end: str) -> None:
    made = await bench(heartbeat=Heartbeat(0.0, patience=1e9))
    made.channel.start()
    stream = made.other.stream
    {
        "eof": stream.write_eof,
        "reset": lambda: stream.reset(0),
        "stop": lambda: stream.stop(0),
        "lose": stream.link.lose,
    }[end]()
    await until(lambda: bool(made.ends))
    made.channel.send([(NO_OFFLOAD, PACKET)])
    stream.link.lose()
    await asyncio.sleep(0)
    assert len(made.ends) == 1


async def test_closing_it_is_no_end_to_be_told() -> None:
    made = await bench(heartbeat=Heartbeat(0.0, patience=1e9))
    made.channel.start()
    made.channel.close()
    made.channel.close()
    await until(lambda: "eof" in made.other.events)
    assert made.ends == []


async def test_pressure_is_told_and_what_is_sent_meanwhile_counted() -> None:
    made = await bench(
        Sizes(window=4096, initial_window=4096, high_water=8192),
        heartbeat=Heartbeat(0.0, patience=1e9),
    )
    made.other.consume = False
    made.channel.start()
    packet = udp("10.0.0.2", "10.0.0.1", (1, 2), bytes(1000))
    while not made.channel.paused:
        made.channel.send([(NO_OFFLOAD, packet)])
        await asyncio.sleep(0)
    made.channel.send([(NO_OFFLOAD, packet)] * 2)
    assert made.channel.overrun == 2
    made.other.consume = True
    made.other.stream.consumed(made.other.stream.unconsumed)
    await until(lambda: made.resumed == 1)
    assert not made.channel.paused and made.channel.overrun == 0
