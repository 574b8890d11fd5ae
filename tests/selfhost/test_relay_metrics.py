"""The metrics are Prometheus text."""

import re

from tunnel_rs.selfhost.relay_metrics import RelayMetrics


def test_every_counter_is_rendered_once_with_its_type() -> None:
    text = RelayMetrics(bytes_sent=7).render(connections=3, endpoints=2)
    assert "relayserver_bytes_sent_total 7\n" in text
    assert "# TYPE relayserver_connections gauge\nrelayserver_connections 3\n" in text
    assert "relayserver_endpoints 2\n" in text
    line = re.compile(r"# TYPE (relayserver_[a-z_]+) (counter|gauge)\n\1 \d+\n")
    assert "".join(match.group() for match in line.finditer(text)) == text
    assert "_total_total" not in text
