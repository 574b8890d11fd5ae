"""The data stream of one VPN connection: packets in batches, and signs of life.

Nothing is queued here. What the stream cannot send yet is bounded by who calls `send`: it looks
at `paused` and `overrun`.
"""

import asyncio
from collections.abc import Callable, Collection

from tunnel_rs.errors import ProtocolError, TunnelError, UnreachableError
from tunnel_rs.net.link import ByteStream, StreamReceiver
from tunnel_rs.proto.vpn_frames import (
    PING,
    PONG,
    FrameDecoder,
    Offloaded,
    offload_head,
    packet_head,
)
from tunnel_rs.proto.vpn_heartbeat import Heartbeat
from tunnel_rs.proto.vpn_joining import join
from tunnel_rs.proto.vpn_offload import NO_OFFLOAD, check, pieces
from tunnel_rs.vpn.traffic import Traffic

STREAM_DONE = 0

OnPackets = Callable[[list[Offloaded]], None]


class PacketChannel(StreamReceiver):
    """One end of a data stream. Call `start`; `on_end` is called once, whatever ends it."""

    def __init__(
        self,
        stream: ByteStream,
        heartbeat: Heartbeat,
        traffic: Traffic,
        *,
        offload: bool,
        answers_pings: bool,
        ends_here: Collection[bytes] = (),
        on_packets: OnPackets,
        on_end: Callable[[TunnelError], None],
        on_resume: Callable[[], None],
    ) -> None:
        """`offload`: both ends take super-packets. `ends_here`: addresses for which small packets
        may be delivered joined. `on_resume` is called when `paused` has become False."""
        self.paused = False
        self.overrun = 0
        """Packets that were sent since it was paused."""
        self.offload = offload
        self._stream = stream
        self._heartbeat = heartbeat
        self._traffic = traffic
        self._answers_pings = answers_pings
        self._ends_here = ends_here
        self._on_packets = on_packets
        self._on_end = on_end
        self._on_resume = on_resume
        self._decoder = FrameDecoder(offload=offload)
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._ended = False

    def start(self) -> None:
        """Take what comes, and ping at once if we are the side that pings."""
        self._look()
        self._stream.set_receiver(self)

    def send(self, packets: list[Offloaded]) -> None:
        """Send packets in one write."""
        if self._ended:
            return
        if self.paused:
            self.overrun += len(packets)
        frames: list[bytes] = []
        count, octets = len(packets), 0
        head, usual = b"", -1
        for header, packet in packets:
            size = len(packet)
            octets += size
            if header is NO_OFFLOAD:
                if size != usual:
                    head, usual = packet_head(size), size
                frames.append(head)
                frames.append(packet)
            elif self.offload:
                frames.append(offload_head(header, size))
                frames.append(packet)
            else:
                cut = self._cut(header, packet)
                count += len(cut) - 1
                for piece in cut:
                    frames.append(packet_head(len(piece)))
                    frames.append(piece)
        self._traffic.sent_packets += count
        self._traffic.sent_bytes += octets
        self._stream.write(b"".join(frames))

    def close(self) -> None:
        """End our direction; nothing more is delivered."""
        if not self._ended:
            self._finish()
            self._stream.write_eof()
            self._stream.stop(STREAM_DONE)

    def _cut(self, header: bytes, packet: bytes) -> list[bytes]:
        try:
            return pieces(header, packet)
        except ProtocolError:
            self._traffic.dropped["offload"] += 1
            return []

    # What the stream calls

    def data_received(self, data: bytes) -> None:
        if not self._ended:
            self._take(data)
        self._stream.consumed(len(data))

    def eof_received(self) -> None:
        self._fail(UnreachableError("the peer ended the tunnel"))

    def reset_received(self, code: int) -> None:
        self._fail(UnreachableError("the peer broke off the tunnel"))

    def stop_received(self, code: int) -> None:
        self._fail(UnreachableError("the peer takes no more packets"))

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        self.overrun = 0
        if not self._ended:
            self._on_resume()

    def connection_lost(self, error: Exception | None) -> None:
        if isinstance(error, TunnelError):
            self._fail(error)
        else:
            self._fail(UnreachableError("the tunnel has ended" if error is None else str(error)))

    def _take(self, data: bytes) -> None:
        self._heartbeat.heard(self._loop.time())
        try:
            packets, octets, pings, _ = self._decoder.feed(data)
            if self.offload:
                for header, packet in packets:
                    if header is not NO_OFFLOAD:
                        check(header, packet)
        except ProtocolError as error:
            self._fail(error)
            return
        if pings and self._answers_pings:
            self._stream.write(PONG)  # one is enough for all that came together
        if packets:
            self._traffic.received_packets += len(packets)
            self._traffic.received_bytes += octets
            self._on_packets(join(packets, self._ends_here) if self._ends_here else packets)

    def _look(self) -> None:
        now = self._loop.time()
        if self._heartbeat.is_lost(now):
            self._fail(UnreachableError("no sign of life from the peer"))
            return
        if self._heartbeat.ping_due(now):
            self._stream.write(PING)
        self._timer = self._loop.call_later(self._heartbeat.next_look(now), self._look)

    def _finish(self) -> None:
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()

    def _fail(self, error: TunnelError) -> None:
        if not self._ended:
            self._finish()
            self._stream.reset(STREAM_DONE)
            self._stream.stop(STREAM_DONE)
            self._on_end(error)
