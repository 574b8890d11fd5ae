"""Peer-to-peer TCP and UDP port forwarding, compatible with iroh 1.x and the Rust tunnel-rs."""

__version__ = "0.1.0"
