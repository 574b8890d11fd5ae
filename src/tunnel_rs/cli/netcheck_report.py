"""The findings of `netcheck`, as lines for people and as a JSON object."""

import json
from collections.abc import Iterator

from tunnel_rs.cli.plain import plain
from tunnel_rs.cli.wording import printable
from tunnel_rs.iroh.netcheck_findings import Discovery, Family, Findings, Mapping, Nat, Relay


def lines(findings: Findings) -> Iterator[str]:
    """Facts first, then a sentence on what each means."""
    yield from map(printable, _facts(findings))
    yield ""
    yield "What this means:"
    for sentence in findings.meaning():
        yield f"  - {printable(sentence)}"


def _facts(findings: Findings) -> Iterator[str]:
    for family in findings.families:
        yield from _family(family)
    for nat in findings.nats:
        yield _nat(nat)
    for relay in findings.relays:
        yield _relay(relay)
    for problem in findings.unresolved:
        yield f"Name: {problem}"
    if findings.discovery is not None:
        yield from _discovery(findings.discovery)
    if findings.clock_skew is not None:
        yield f"Clock: {round(findings.clock_skew):+d} s against the relays'"
    if (buffers := findings.buffers) is not None:
        yield (
            f"UDP socket buffers: {buffers.receive:,} B to receive, {buffers.send:,} B to send"
            f" ({buffers.asked:,} asked for)"
        )
    yield f"Took {findings.elapsed:.1f} s"


def _family(family: Family) -> Iterator[str]:
    route = "has a route to the internet" if family.route else "has no route to the internet"
    yield f"{family.name}: {route}; own addresses: {', '.join(family.addresses) or 'none'}"
    for mapping in family.mappings:
        yield f"  {mapping.by} server {mapping.server}: {_mapping(mapping)}"
    depends = family.depends_on_destination
    if depends is not None:
        yield f"  Mapping {'depends' if depends else 'does not depend'} on the destination"


def _mapping(mapping: Mapping) -> str:
    return f"sees us as {mapping.address}" if mapping.address else mapping.problem


def _nat(nat: Nat) -> str:
    if nat.problem:
        return f"NAT type (hint, by {nat.server}): not found out: {nat.problem}"
    seen = f", seen as {nat.external}" if nat.external else ""
    return f"NAT type (hint, by {nat.server}): {nat.kind}{seen}"


def _relay(relay: Relay) -> str:
    latency = f"{1000 * relay.latency:.1f} ms" if relay.latency is not None else "no latency"
    access = "lets us in" if relay.let_in else "cannot be used"
    return f"Relay {relay.url}: {latency}, {access}{f': {relay.problem}' if relay.problem else ''}"


def _discovery(discovery: Discovery) -> Iterator[str]:
    yield f"Discovery: published at {discovery.publish_url}: {_took(discovery.publish_time)}"
    if discovery.publish_time is not None:
        yield f"  looked up by {discovery.resolved_by}: {_took(discovery.resolve_time)}"
    if discovery.problem:
        yield f"  {discovery.problem}"


def _took(seconds: float | None) -> str:
    return "failed" if seconds is None else f"{1000 * seconds:.1f} ms"


def event(findings: Findings) -> str:
    """One line of JSON. Times are seconds; absent values null; what is derived is included."""
    content = plain(findings)
    assert isinstance(content, dict)
    content["meaning"] = list(findings.meaning())
    for family, shown in zip(findings.families, content["families"], strict=True):
        shown["answered"] = family.answered
        shown["behind_nat"] = family.behind_nat
        shown["mapping_depends_on_destination"] = family.depends_on_destination
    return json.dumps({"event": "netcheck", **content}, separators=(",", ":"))
