"""Loss recovery as aioquic does it, with a bounded probe interval and our pacer."""

from aioquic.quic.recovery import QuicPacketRecovery

from tunnel_rs.proto.pacer import Pacer

MAX_PROBE_INTERVAL = 2.0
"""Longest wait between two probes, seconds. RFC 9002 section 6.2 doubles without end, so that a
path which comes back after an outage would be noticed minutes later; noq caps it here too."""


class Recovery(QuicPacketRecovery):
    """`QuicPacketRecovery` with `MAX_PROBE_INTERVAL` and a `Pacer`. Made from an existing one."""

    @classmethod
    def adopt(cls, recovery: QuicPacketRecovery, *, max_datagram_size: int) -> "Recovery":
        """Turn a fresh aioquic recovery into ours; how it is made is aioquic's business."""
        recovery.__class__ = cls
        assert isinstance(recovery, Recovery)
        recovery._pacer = Pacer(max_datagram_size=max_datagram_size)  # type: ignore[assignment]
        return recovery

    @property
    def pacer(self) -> Pacer:
        pacer: object = self._pacer
        assert isinstance(pacer, Pacer)
        return pacer

    @property
    def smoothed_rtt(self) -> float:
        """Seconds; the initial guess before the first sample."""
        return self._rtt_smoothed if self._rtt_initialized else self._rtt_initial

    def get_loss_detection_time(self, *, amplification_limited: bool = False) -> float | None:
        due = super().get_loss_detection_time(amplification_limited=amplification_limited)
        if due is None or self._pto_count == 0 or self._get_loss_space() is not None:
            return due
        return min(due, self._time_of_last_sent_ack_eliciting_packet + MAX_PROBE_INTERVAL)
