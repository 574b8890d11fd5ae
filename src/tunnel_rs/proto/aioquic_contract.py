"""The private surface of aioquic that the engine leans on, checked once at import.

An aioquic that moved any of it would fail in the middle of a connection; here it fails at start
with a sentence that says what to install.
"""

import inspect
from importlib.metadata import version

from aioquic import tls
from aioquic.quic import connection, recovery, stream

SUPPORTED = "aioquic>=1.7.2,<1.8"

FRAME_HANDLERS = "_QuicConnection__frame_handlers"
"""Attribute of each connection: a dict from frame type to (handler, epochs it is allowed in)."""

_SIGNATURES: dict[type, dict[str, tuple[str, ...]]] = {
    connection.QuicConnection: {
        "_close_end": (),
        "_flush_builder": ("builder", "network_path", "peer_cid", "now"),
        "_get_or_create_stream_for_send": ("stream_id",),
        "_handle_max_data_frame": ("context", "frame_type", "buf"),
        "_handle_max_stream_data_frame": ("context", "frame_type", "buf"),
        "_handle_reset_stream_frame": ("context", "frame_type", "buf"),
        "_handle_stop_sending_frame": ("context", "frame_type", "buf"),
        "_handle_stream_frame": ("context", "frame_type", "buf"),
        "_idle_timeout": (),
        "_initialize": ("peer_cid",),
        "_parse_transport_parameters": ("data", "from_session_ticket"),
        "_replenish_connection_ids": (),
        "_serialize_transport_parameters": (),
        "_unblock_streams": ("is_unidirectional",),
        "_write_ack_frame": ("builder", "space", "now"),
        "_write_application": ("builder", "network_path", "now"),
        "_write_connection_limits": ("builder", "space"),
        "_write_crypto_frame": ("builder", "space", "stream"),
        "_write_datagram_frame": ("builder", "data", "frame_type"),
        "_write_handshake_done_frame": ("builder",),
        "_write_new_connection_id_frame": ("builder", "connection_id"),
        "_write_path_challenge_frame": ("builder", "network_path"),
        "_write_path_response_frame": ("builder", "challenge"),
        "_write_ping_frame": ("builder", "uids", "comment"),
        "_write_retire_connection_id_frame": ("builder", "sequence_number"),
        "_write_stream_limits": ("builder", "space", "stream"),
        "_write_streams_blocked_frame": ("builder", "frame_type", "limit"),
    },
    recovery.QuicPacketRecovery: {
        "_get_loss_space": (),
        "get_loss_detection_time": ("amplification_limited",),
        "get_probe_timeout": ("include_max_ack_delay",),
    },
    stream.QuicStreamSender: {
        "get_frame": ("max_size", "max_offset"),
        "on_data_delivery": ("delivery", "start", "stop", "fin"),
        "on_reset_delivery": ("delivery",),
    },
    tls.Context: {
        "_set_peer_certificate": ("certificate",),
    },
}


def _missing() -> list[str]:
    found = []
    for owner, members in _SIGNATURES.items():
        for name, expected in members.items():
            function = getattr(owner, name, None)
            actual = tuple(inspect.signature(function).parameters)[1:] if function else None
            if actual != expected:
                found.append(f"{owner.__name__}.{name}")
    if FRAME_HANDLERS not in connection.QuicConnection.__init__.__code__.co_names:
        found.append(f"QuicConnection.{FRAME_HANDLERS}")
    return found


def check() -> None:
    """Raise ImportError unless the installed aioquic has what the engine needs."""
    if missing := _missing():
        raise ImportError(
            f"aioquic {version('aioquic')} does not fit this version of tunnel-rs "
            f"({', '.join(missing)} changed); install '{SUPPORTED}'"
        )
