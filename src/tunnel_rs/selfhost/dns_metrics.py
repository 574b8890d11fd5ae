"""Counters of a discovery server, in the Prometheus text format."""

from dataclasses import dataclass, fields

from tunnel_rs.proto.prometheus import Kind, render, single


@dataclass(slots=True)
class DnsMetrics:
    """Totals since the start. Plain integers: all of it runs in one thread."""

    pkarr_publish_update: int = 0
    """Packets that were kept."""

    pkarr_publish_noop: int = 0
    """Packets that were accepted, but not newer than what was known."""

    pkarr_publish_error: int = 0
    """Packets that were refused, or could not be stored."""

    pkarr_publish_ratelimited: int = 0
    pkarr_lookups: int = 0
    dns_requests_udp: int = 0
    dns_requests_tcp: int = 0
    dns_requests_https: int = 0
    dns_requests_limited: int = 0
    dns_lookup_success: int = 0
    dns_lookup_notfound: int = 0
    dns_lookup_error: int = 0
    http_requests: int = 0
    http_connections_refused: int = 0
    store_packets_expired: int = 0
    store_errors: int = 0

    def render(self, *, records: int) -> str:
        """The whole answer to `GET /metrics`; `records` is how many are stored now."""
        counters = (
            single(f"dnsserver_{field.name}_total", Kind.COUNTER, getattr(self, field.name))
            for field in fields(self)
        )
        return render([*counters, single("dnsserver_records", Kind.GAUGE, records)])
