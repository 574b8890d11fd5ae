"""What was carried and what was dropped."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Traffic:
    """Packets and their bytes, as seen from this end; drops by reason."""

    sent_packets: int = 0
    sent_bytes: int = 0
    received_packets: int = 0
    received_bytes: int = 0
    dropped: Counter[str] = field(default_factory=Counter)

    def add(self, other: "Traffic") -> None:
        """Count what another has counted, too."""
        self.sent_packets += other.sent_packets
        self.sent_bytes += other.sent_bytes
        self.received_packets += other.received_packets
        self.received_bytes += other.received_bytes
        self.dropped.update(other.dropped)

    def as_json(self) -> dict[str, object]:
        return {
            "sent_packets": self.sent_packets,
            "sent_bytes": self.sent_bytes,
            "received_packets": self.received_packets,
            "received_bytes": self.received_bytes,
            "dropped": dict(self.dropped),
        }
