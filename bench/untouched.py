"""`ethernet.py` with aioquic's own loss recovery and CUBIC in place of ours: what those reach under
the same input and output, for `figures.py` to set ours beside. It needs
`iroh.transport.fast_path = false`.
"""

import sys
from pathlib import Path

from aioquic.quic.congestion.base import register_congestion_control
from aioquic.quic.congestion.cubic import CubicCongestionControl
from aioquic.quic.rangeset import RangeSet
from aioquic.quic.recovery import QuicPacketRecovery, QuicPacketSpace

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.ethernet import on_ethernet

from tunnel_rs.cli.main import main
from tunnel_rs.proto import congestion
from tunnel_rs.proto.recovery import Recovery
from tunnel_rs.proto.transport_settings import CongestionController

_NAME = "aioquic-cubic"


class Cubic(CubicCongestionControl):
    """aioquic's, with the two calls that our recovery makes besides."""

    def set_datagram_size(self, size: int) -> None:
        self._max_datagram_size = self.additive_increase_factor = size

    def restart(self) -> None:
        self.reset()


def _on_ack_received(
    self: Recovery, *, ack_rangeset: RangeSet, ack_delay: float, now: float, space: QuicPacketSpace
) -> None:
    self.answered_at = now  # path selection reads it
    QuicPacketRecovery.on_ack_received(
        self, ack_rangeset=ack_rangeset, ack_delay=ack_delay, now=now, space=space
    )


def with_untouched_recovery() -> None:
    """All connections of this process from now on."""
    register_congestion_control(_NAME, Cubic)
    congestion._NAMES[CongestionController.CUBIC] = _NAME
    Recovery.on_ack_received = _on_ack_received  # type: ignore[method-assign]
    del Recovery._detect_loss
    Recovery._control = property(lambda self: self._cc)  # type: ignore[assignment]


if __name__ == "__main__":
    on_ethernet()
    with_untouched_recovery()
    main()
