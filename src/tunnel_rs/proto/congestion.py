"""Congestion controllers: aioquic's, kept from growing while the application is the limit.

RFC 9002 section 7.8 and RFC 9438 section 4.2: a window that is not used says nothing about the
path; aioquic lets it grow without bound, so that the first burst after a pause may be anything.
"""

from collections.abc import Iterable

from aioquic.quic.congestion.base import QuicCongestionControl, register_congestion_control
from aioquic.quic.congestion.cubic import CubicCongestionControl
from aioquic.quic.congestion.reno import RenoCongestionControl
from aioquic.quic.packet_builder import QuicSentPacket

from tunnel_rs.proto.transport_settings import CongestionController


class _UsageMeter:
    """Most bytes in flight during the current and the previous round trip."""

    __slots__ = ("_peak", "_previous", "_round_start")

    def __init__(self) -> None:
        self._peak = self._previous = 0
        self._round_start = 0.0

    def sent(self, in_flight: int) -> None:
        self._peak = max(self._peak, in_flight)

    def acked(self, packet: QuicSentPacket, in_flight: int, now: float) -> None:
        assert packet.sent_time is not None
        if packet.sent_time >= self._round_start:
            self._round_start, self._previous, self._peak = now, self._peak, in_flight

    @property
    def peak(self) -> int:
        return max(self._peak, self._previous)


def _is_limiting(control: QuicCongestionControl, peak: int) -> bool:
    """Whether the window, not the application, kept us from sending more."""
    slow_start = control.ssthresh is None or control.congestion_window < control.ssthresh
    return (
        2 * peak >= control.congestion_window
        if slow_start
        else 4 * peak >= 3 * (control.congestion_window)
    )


class Cubic(CubicCongestionControl):
    """CUBIC (RFC 9438) that stays put while application-limited."""

    def __init__(self, *, max_datagram_size: int) -> None:
        super().__init__(max_datagram_size=max_datagram_size)
        self._usage = _UsageMeter()
        self._acked_at = 0.0

    def on_packet_sent(self, *, packet: QuicSentPacket) -> None:
        super().on_packet_sent(packet=packet)
        self._usage.sent(self.bytes_in_flight)

    def on_packet_acked(self, *, now: float, packet: QuicSentPacket) -> None:
        self._usage.acked(packet, self.bytes_in_flight, now)
        assert packet.sent_time is not None
        if packet.sent_time <= self._congestion_recovery_start_time:
            # RFC 9002 section 7.3.2: no growth from packets sent before the recovery began.
            self.bytes_in_flight -= packet.sent_bytes
            self.last_ack = packet.sent_time
        elif _is_limiting(self, self._usage.peak):
            super().on_packet_acked(now=now, packet=packet)
        else:
            self.bytes_in_flight -= packet.sent_bytes
            self.last_ack = packet.sent_time
            # The curve must not run on while the window is unused (RFC 9438 section 5.8).
            self._t_epoch += now - self._acked_at
        self._acked_at = now

    def on_packets_lost(self, *, now: float, packets: Iterable[QuicSentPacket]) -> None:
        # RFC 9438 section 4.6 lets the window before the loss, not what is left in flight after
        # it, set the new threshold; aioquic takes the flight, which a batch of losses empties.
        window = self.congestion_window
        before = self._congestion_recovery_start_time
        super().on_packets_lost(now=now, packets=packets)
        if self._congestion_recovery_start_time != before:
            reduced = max(int(min(window, self._usage.peak) * 0.7), 2 * self._max_datagram_size)
            self.ssthresh = self.congestion_window = reduced


class NewReno(RenoCongestionControl):
    """NewReno (RFC 9002 appendix B) that stays put while application-limited."""

    def __init__(self, *, max_datagram_size: int) -> None:
        super().__init__(max_datagram_size=max_datagram_size)
        self._usage = _UsageMeter()

    def on_packet_sent(self, *, packet: QuicSentPacket) -> None:
        super().on_packet_sent(packet=packet)
        self._usage.sent(self.bytes_in_flight)

    def on_packet_acked(self, *, now: float, packet: QuicSentPacket) -> None:
        self._usage.acked(packet, self.bytes_in_flight, now)
        if _is_limiting(self, self._usage.peak):
            super().on_packet_acked(now=now, packet=packet)
        else:
            self.bytes_in_flight -= packet.sent_bytes


_NAMES = {
    CongestionController.CUBIC: "tunnel-rs-cubic",
    CongestionController.NEW_RENO: "tunnel-rs-newreno",
}
register_congestion_control(_NAMES[CongestionController.CUBIC], Cubic)
register_congestion_control(_NAMES[CongestionController.NEW_RENO], NewReno)


def registered_name(controller: CongestionController) -> str:
    """The name aioquic knows our controller by. Raises ValueError for one we do not have."""
    try:
        return _NAMES[controller]
    except KeyError:
        raise ValueError(f"congestion controller {controller.value!r} is not available") from None
