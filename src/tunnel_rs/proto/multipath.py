"""The engine with several paths at a time (spec `multipath.md`).

Its parts, each on top of the one before: `path_context` (what a path has of its own),
`path_output` (what is sent because there are paths), `path_life` (opening, preferring, abandoning),
`path_timers` (silence and failover), `path_frames` (what the peer says).
"""

from tunnel_rs.proto.path_frames import PathFrames


class MultipathEngine(PathFrames):
    """See `Engine`. With a peer that knows nothing of paths it behaves like that."""
