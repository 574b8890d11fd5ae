import json

from tunnel_rs.cli import netcheck_report
from tunnel_rs.iroh.netcheck_findings import (
    Buffers,
    Discovery,
    Family,
    Findings,
    Mapping,
    Nat,
    Relay,
)
from tunnel_rs.values import SocketAddr

BOUND, SEEN = SocketAddr("0.0.0.0", 5), SocketAddr("203.0.113.1", 50)
ONE, TWO = SocketAddr("198.51.100.1", 7842), SocketAddr("198.51.100.2", 3478)
FINDINGS = Findings(
    families=(
        Family(
            "IPv4",
            ("192.168.1.5",),
            True,
            BOUND,
            (
                Mapping("r.example:7842", "QUIC", ONE, SEEN, True),
                Mapping("s.example:3478", "STUN", TWO, SEEN, True),
                Mapping("t.example:3478", "STUN", TWO, problem="no answer"),
            ),
        ),
        Family("IPv6", (), False, None),
    ),
    relays=(
        Relay("https://r.example/", 0.0123, True),
        Relay("https://s.example/", None, False, "its \x1b[31mname cannot be resolved"),
    ),
    discovery=Discovery("https://d.example/pkarr", "DNS, d.example.", 0.05, None, "no such name"),
    nats=(
        Nat("s.example:3478", "full cone", SEEN),
        Nat("t.example:3478", problem="no answer in time"),
    ),
    unresolved=("u.example: cannot be resolved",),
    clock_skew=-0.2,
    buffers=Buffers(4_194_304, 212_992, 425_984),
    elapsed=1.26,
)


def test_people_read_facts_and_then_what_they_mean() -> None:
    facts, _, meaning = "\n".join(netcheck_report.lines(FINDINGS)).partition("\n\n")
    assert facts.splitlines() == [
        "IPv4: has a route to the internet; own addresses: 192.168.1.5",
        "  QUIC server r.example:7842: sees us as 203.0.113.1:50",
        "  STUN server s.example:3478: sees us as 203.0.113.1:50",
        "  STUN server t.example:3478: no answer",
        "  Mapping does not depend on the destination",
        "IPv6: has no route to the internet; own addresses: none",
        "NAT type (hint, by s.example:3478): full cone, seen as 203.0.113.1:50",
        "NAT type (hint, by t.example:3478): not found out: no answer in time",
        "Relay https://r.example/: 12.3 ms, lets us in",
        "Relay https://s.example/: no latency, cannot be used: its \\x1b[31mname cannot be"
        " resolved",
        "Name: u.example: cannot be resolved",
        "Discovery: published at https://d.example/pkarr: 50.0 ms",
        "  looked up by DNS, d.example.: failed",
        "  no such name",
        "Clock: +0 s against the relays'",
        "UDP socket buffers: 212,992 B to receive, 425,984 B to send (4,194,304 asked for)",
        "Took 1.3 s",
    ]
    assert meaning.splitlines()[0] == "What this means:"
    assert all(line.startswith("  - ") for line in meaning.splitlines()[1:])
    assert "\x1b" not in meaning


def test_programs_read_one_object() -> None:
    text = netcheck_report.event(FINDINGS)
    event = json.loads(text)
    assert "\n" not in text
    assert event["event"] == "netcheck"
    assert event["families"][0]["mapping_depends_on_destination"] is False
    assert event["families"][0]["behind_nat"] is True
    assert event["families"][1]["answered"] is None
    assert event["families"][0]["mappings"][0]["address"] == "203.0.113.1:50"
    assert event["relays"][0]["latency"] == 0.0123
    assert event["discovery"]["resolve_time"] is None
    assert event["buffers"] == {"asked": 4_194_304, "receive": 212_992, "send": 425_984}
    assert event["meaning"] == list(FINDINGS.meaning())
