from tunnel_rs.selfhost.dns_metrics import DnsMetrics


def test_every_counter_is_written_with_its_type() -> None:
    metrics = DnsMetrics(pkarr_publish_update=3)
    lines = metrics.render(records=7).splitlines()
    assert "dnsserver_pkarr_publish_update_total 3" in lines
    assert "# TYPE dnsserver_pkarr_publish_update_total counter" in lines
    assert "dnsserver_dns_requests_udp_total 0" in lines
    assert lines[-1] == "dnsserver_records 7"
