"""Congestion controllers that count bytes: CUBIC (RFC 9438) and NewReno (RFC 9002 section 7).

aioquic's own count packets, so that a train acknowledged at once grows the window as one packet,
and let it grow without bound while the application is the limit. These do neither: RFC 9002 section
7.8 and RFC 9438 section 5.8 keep a window that is not used from growing.
"""

from collections.abc import Iterable
from typing import Any, Protocol

from aioquic.quic.congestion.base import (
    K_INITIAL_WINDOW,
    K_MINIMUM_WINDOW,
    QuicCongestionControl,
    register_congestion_control,
)

from tunnel_rs.proto.hystart import HyStart
from tunnel_rs.proto.transport_settings import CongestionController

_CUBIC_C = 0.4
_CUBIC_BETA = 0.7
_CUBIC_ALPHA = 3 * (1 - _CUBIC_BETA) / (1 + _CUBIC_BETA)
_RENO_BETA = 0.5


class Sent(Protocol):
    """A packet, or a train of packets, as controllers see it."""

    @property
    def sent_bytes(self) -> int: ...

    @property
    def sent_time(self) -> float | None: ...


class WindowControl(QuicCongestionControl):
    """What both controllers share: slow start with HyStart++, recovery periods, usage."""

    beta = 1.0
    undoable: tuple[str, ...] = ("congestion_window", "ssthresh", "recovery_start")
    """What a loss changes, and takes back when there was none."""

    def __init__(self, *, max_datagram_size: int) -> None:
        super().__init__(max_datagram_size=max_datagram_size)
        self.max_datagram_size = max_datagram_size
        self.recovery_start = float("-inf")
        """When the window last shrank for a loss."""
        self._before_loss: dict[str, Any] = {}
        self._hystart = HyStart()
        self._round_start = 0.0
        self._peak = self._previous_peak = 0
        self._acked_at = 0.0

    def set_datagram_size(self, size: int) -> None:
        """Datagrams are larger or smaller from now on; the limits counted in them follow."""
        self.max_datagram_size = size
        least = K_INITIAL_WINDOW * size if self.ssthresh is None else self.minimum_window
        self.congestion_window = max(self.congestion_window, least)

    @property
    def minimum_window(self) -> int:
        return K_MINIMUM_WINDOW * self.max_datagram_size

    @property
    def in_slow_start(self) -> bool:
        return self.ssthresh is None or self.congestion_window < self.ssthresh

    def _is_used(self) -> bool:
        """Whether the window, not the application, limited what was in flight lately."""
        peak = max(self._peak, self._previous_peak)
        if self.in_slow_start:
            return 2 * peak >= self.congestion_window
        return 4 * peak >= 3 * self.congestion_window

    def on_packet_sent(self, *, packet: Sent) -> None:
        self.bytes_in_flight += packet.sent_bytes
        self._peak = max(self._peak, self.bytes_in_flight)

    def on_packet_acked(self, *, now: float, packet: Sent) -> None:
        sent_time = packet.sent_time
        assert sent_time is not None
        if sent_time >= self._round_start:
            self._previous_peak, self._peak = self._peak, self.bytes_in_flight
            self._round_start = now
            self._hystart.start_round()
        self.bytes_in_flight -= packet.sent_bytes
        if not self._is_used():
            self._stood_still(now - self._acked_at)
        elif sent_time > self.recovery_start:
            if self.in_slow_start:
                self.congestion_window += int(packet.sent_bytes * self._hystart.growth)
            else:
                self._avoid_congestion(now, packet.sent_bytes)
        self._acked_at = now

    def on_packets_expired(self, *, packets: Iterable[Sent]) -> None:
        self.bytes_in_flight -= sum(packet.sent_bytes for packet in packets)

    def on_packets_lost(self, *, now: float, packets: Iterable[Sent]) -> None:
        newest = float("-inf")
        for packet in packets:
            self.bytes_in_flight -= packet.sent_bytes
            assert packet.sent_time is not None
            newest = max(newest, packet.sent_time)
        if newest > self.recovery_start:
            self._before_loss = {name: getattr(self, name) for name in self.undoable}
            self.recovery_start = now
            before = self.congestion_window
            self.congestion_window = max(int(before * self.beta), self.minimum_window)
            self.ssthresh = self.congestion_window
            self._reduced(now, before)

    def undo_loss(self) -> None:
        """Nothing was lost when the window last shrank for it (RFC 9438 section 4.9.2)."""
        window = self.congestion_window
        for name, value in self._before_loss.items():
            setattr(self, name, value)
        self.congestion_window = max(self.congestion_window, window)
        self._before_loss = {}

    def on_persistent_congestion(self) -> None:
        self._before_loss = {}
        self.congestion_window = self.minimum_window
        self.recovery_start = float("-inf")

    def on_rtt_measurement(self, *, now: float, rtt: float) -> None:
        if self.ssthresh is None and self._hystart.sample(rtt):
            self.ssthresh = self.congestion_window
            self._reduced(now, self.congestion_window)

    def restart(self) -> None:
        """Begin anew, for another path (RFC 9000 section 9.4)."""
        self.congestion_window = K_INITIAL_WINDOW * self.max_datagram_size
        self.ssthresh = None
        self._before_loss = {}
        self._hystart = HyStart()

    def get_log_data(self) -> dict[str, Any]:
        return super().get_log_data()

    def _avoid_congestion(self, now: float, acked: int) -> None:
        """Grow by what `acked` bytes are worth."""
        raise AssertionError("a controller defines this")

    def _reduced(self, now: float, before: int) -> None:
        """The window has just been set; `before` is what it was."""

    def _stood_still(self, elapsed: float) -> None:
        """For `elapsed` seconds the application was the limit."""


class NewReno(WindowControl):
    """RFC 9002 section 7.3, appendix B."""

    beta = _RENO_BETA
    undoable = (*WindowControl.undoable, "_acked")

    def __init__(self, *, max_datagram_size: int) -> None:
        super().__init__(max_datagram_size=max_datagram_size)
        self._acked = 0

    def _avoid_congestion(self, now: float, acked: int) -> None:
        self._acked += acked
        windows, self._acked = divmod(self._acked, self.congestion_window)
        self.congestion_window += windows * self.max_datagram_size

    def _reduced(self, now: float, before: int) -> None:
        self._acked = 0


class Cubic(WindowControl):
    """RFC 9438. Windows are kept in bytes; the cubic function counts segments."""

    beta = _CUBIC_BETA
    undoable = (
        *WindowControl.undoable,
        *("_window_max", "_prior", "_reno_window", "_k", "_epoch", "_has_curve"),
    )

    def __init__(self, *, max_datagram_size: int) -> None:
        super().__init__(max_datagram_size=max_datagram_size)
        self._window_max = 0.0
        self._prior = 0
        self._reno_window = 0.0
        self._k = 0.0
        self._epoch = 0.0
        self._has_curve = True
        self._srtt = 0.02

    def on_rtt_measurement(self, *, now: float, rtt: float) -> None:
        self._srtt += (rtt - self._srtt) / 8
        super().on_rtt_measurement(now=now, rtt=rtt)

    def _window_at(self, t: float) -> float:
        return _CUBIC_C * (t - self._k) ** 3 * self.max_datagram_size + self._window_max

    def _reduced(self, now: float, before: int) -> None:
        fast_convergence = before < self._window_max
        self._window_max = before * (1 + _CUBIC_BETA) / 2 if fast_convergence else before
        self._prior = before
        segments = (self._window_max - self.congestion_window) / self.max_datagram_size
        self._k = max(0.0, segments / _CUBIC_C) ** (1 / 3)
        self._epoch = now
        self._reno_window = self.congestion_window
        self._has_curve = True

    def _avoid_congestion(self, now: float, acked: int) -> None:
        if not self._has_curve:
            self._begin_curve(now)
        window = self.congestion_window
        share = acked / window
        alpha = 1.0 if self._reno_window >= self._prior else _CUBIC_ALPHA
        self._reno_window += alpha * share * self.max_datagram_size
        t = now - self._epoch
        target = min(max(self._window_at(t + self._srtt), window), 1.5 * window)
        grown = window + (target - window) * min(share, 1.0)
        self.congestion_window = int(max(grown, self._reno_window, window))

    def on_persistent_congestion(self) -> None:
        super().on_persistent_congestion()
        self._has_curve = False

    def _begin_curve(self, now: float) -> None:
        """RFC 9438 section 4.8: after a timeout the curve starts flat, where slow start ended."""
        self._window_max = self._reno_window = self._prior = self.congestion_window
        self._k = 0.0
        self._epoch = now
        self._has_curve = True

    def _stood_still(self, elapsed: float) -> None:
        self._epoch += elapsed


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
