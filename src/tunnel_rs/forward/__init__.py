"""Port forwarding over any `Link`: auth dialogue, source requests, TCP and UDP flows."""
