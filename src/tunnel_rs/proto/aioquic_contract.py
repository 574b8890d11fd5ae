"""The private surface of aioquic that the engine leans on, checked once at import.

An aioquic that moved any of it would fail in the middle of a connection; here it fails at start
with a sentence that says what to install.
"""

import inspect
from importlib.metadata import version

from aioquic import _crypto, tls
from aioquic.quic import connection, crypto, packet_builder, recovery, stream
from aioquic.quic.configuration import QuicConfiguration

SUPPORTED = "aioquic>=1.7.2,<1.8"

FRAME_HANDLERS = "_QuicConnection__frame_handlers"
"""Attribute of each connection: a dict from frame type to (handler, epochs it is allowed in)."""

_SIGNATURES: dict[type, dict[str, tuple[str, ...]]] = {
    connection.QuicConnection: {
        "_close_end": (),
        "_confirm_handshake": (),
        "_consume_peer_cid": (),
        "_flush_builder": ("builder", "network_path", "peer_cid", "now"),
        "_get_or_create_stream": ("frame_type", "stream_id"),
        "_get_or_create_stream_for_send": ("stream_id",),
        "_handle_ack_frame": ("context", "frame_type", "buf"),
        "_handle_connection_close_frame": ("context", "frame_type", "buf"),
        "_handle_datagram_frame": ("context", "frame_type", "buf"),
        "_handle_crypto_frame": ("context", "frame_type", "buf"),
        "_handle_max_data_frame": ("context", "frame_type", "buf"),
        "_handle_max_stream_data_frame": ("context", "frame_type", "buf"),
        "_handle_reset_stream_frame": ("context", "frame_type", "buf"),
        "_handle_stop_sending_frame": ("context", "frame_type", "buf"),
        "_handle_stream_frame": ("context", "frame_type", "buf"),
        "_add_network_path": ("network_path",),
        "_handle_new_connection_id_frame": ("context", "frame_type", "buf"),
        "_handle_path_challenge_frame": ("context", "frame_type", "buf"),
        "_handle_path_response_frame": ("context", "frame_type", "buf"),
        "_handle_retire_connection_id_frame": ("context", "frame_type", "buf"),
        "_idle_timeout": (),
        "_on_ack_delivery": ("delivery", "space", "highest_acked"),
        "_on_path_challenge_delivery": ("delivery", "network_path"),
        "_initialize": ("peer_cid",),
        "_payload_received": ("context", "plain", "crypto_frame_required"),
        "_parse_transport_parameters": ("data", "from_session_ticket"),
        "_alpn_handler": ("alpn_protocol",),
        "_replenish_connection_ids": (),
        "_retire_peer_cid": ("connection_id",),
        "_send_probe": (),
        "_send_probing_frames": ("network_path", "now"),
        "_serialize_transport_parameters": (),
        "_unblock_streams": ("is_unidirectional",),
        "_write_ack_frame": ("builder", "space", "now"),
        "_write_application": ("builder", "network_path", "now"),
        "_write_connection_limits": ("builder", "space"),
        "_write_crypto_frame": ("builder", "space", "stream"),
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
        "_detect_loss": ("now", "space"),
        "_get_loss_space": (),
        "_in_persistent_congestion": ("packets",),
        "get_loss_detection_time": ("amplification_limited",),
        "_on_packets_lost": (
            "congestion_event",
            "now",
            "packets",
            "persistent_congestion",
            "space",
        ),
        "get_probe_timeout": ("include_max_ack_delay",),
    },
    stream.QuicStreamSender: {
        "get_frame": ("max_size", "max_offset"),
        "on_data_delivery": ("delivery", "start", "stop", "fin"),
        "on_reset_delivery": ("delivery",),
    },
    crypto.CryptoPair: {"_update_key": ("trigger",)},
    tls.Context: {
        "_set_peer_certificate": ("certificate",),
    },
}

_ATTRIBUTES: dict[type, tuple[str, ...]] = {
    connection.QuicConnection: (
        "_ack_eliciting_sent_since_receipt",
        "_close_at",
        "_close_event",
        "_close_pending",
        "_configuration",
        "_crypto_streams",
        "_cryptos",
        "_events",
        "_handshake_complete",
        "_handshake_confirmed",
        "_handshake_done_pending",
        "_host_cid_seq",
        "_host_cids",
        "_is_client",
        "_local_ack_delay_exponent",
        "_local_max_data",
        "_local_max_streams_bidi",
        "_local_max_streams_uni",
        "_local_next_stream_id_bidi",
        "_logger",
        "_loss",
        "_loss_at",
        "_max_datagram_size",
        "_network_paths",
        "_pacing_at",
        "_packet_number",
        "_peer_cid",
        "_peer_cid_available",
        "_peer_cid_sequence_numbers",
        "_peer_retire_prior_to",
        "_ping_pending",
        "_probe_pending",
        "_remote_ack_delay_exponent",
        "_remote_active_connection_id_limit",
        "_remote_max_data",
        "_remote_max_data_used",
        "_remote_max_datagram_frame_size",
        "_remote_max_idle_timeout",
        "_remote_max_streams_bidi",
        "_retire_connection_ids",
        "_spaces",
        "_spin_bit",
        "_spin_highest_pn",
        "_state",
        "_streams",
        "_streams_blocked_pending",
        "_streams_queue",
        "_version",
    ),
    recovery.QuicPacketRecovery: (
        "_cc",
        "_pacer",
        "_pto_count",
        "_rtt_first_sample_time",
        "_rtt_initial",
        "_rtt_initialized",
        "_rtt_latest",
        "_rtt_min",
        "_rtt_smoothed",
        "_rtt_variance",
        "_send_probe",
        "_time_of_last_sent_ack_eliciting_packet",
    ),
    stream.QuicStreamSender: (
        "_acked",
        "_acked_fin",
        "_buffer",
        "_buffer_fin",
        "_buffer_start",
        "_pending",
        "_pending_eof",
        "_reset_error_code",
    ),
    stream.QuicStreamReceiver: ("_buffer", "_buffer_start", "_final_size"),
    crypto.CryptoPair: ("_update_key_requested", "recv", "send"),
    tls.Context: (
        "_peer_certificate",
        "_request_client_certificate",
        "_signature_algorithms",
        "_supported_groups",
    ),
    recovery.QuicPacketNumberWindow: ("_received", "_size"),
    packet_builder.QuicPacketBuilder: ("_datagram_needs_padding",),
    _crypto.AEAD: ("_aead", "_iv"),
    _crypto.HeaderProtection: ("_encryptor", "_is_chacha20"),
}


def _specimens() -> list[object]:
    """One object of each class in `_ATTRIBUTES`, as aioquic makes them."""
    quic = connection.QuicConnection(configuration=QuicConfiguration(is_client=True))
    data = stream.QuicStream(stream_id=0)
    pair = crypto.CryptoPair()
    pair.setup_initial(cid=bytes(8), is_client=True, version=1)
    builder = packet_builder.QuicPacketBuilder(
        host_cid=b"", peer_cid=b"", version=1, is_client=True, max_datagram_size=1200
    )
    context = tls.Context(is_client=True)
    return [
        quic,
        quic._loss,
        data.sender,
        data.receiver,
        pair,
        context,
        builder,
        recovery.QuicPacketNumberWindow(),
        pair.send.aead,
        pair.send.hp,
    ]


def _missing() -> list[str]:
    found = []
    for specimen in _specimens():
        owner = type(specimen)
        found += [
            f"{owner.__name__}.{name}" for name in _ATTRIBUTES[owner] if not hasattr(specimen, name)
        ]
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
