"""QUIC address discovery (spec `relay.md` section 7): a server tells a client which address its
packets come from. No I/O.

`QadClient` and `QadServer` are connections with an ordinary X.509 certificate: feed datagrams to
`receive_datagram`, call `process`, send what `datagrams_to_send` gives, and call `handle_timer`
when `get_timer` is due. Neither side opens streams.
"""

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Any, NamedTuple

from aioquic import tls
from aioquic._buffer import Buffer, BufferReadError
from aioquic.buffer import encode_uint_var, size_uint_var
from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import (
    Limit,
    QuicConnection,
    QuicConnectionError,
    QuicConnectionState,
    QuicReceiveContext,
)
from aioquic.quic.packet import QuicErrorCode, QuicFrameType, QuicProtocolVersion
from aioquic.quic.packet_builder import QuicDeliveryState, QuicPacketBuilder
from aioquic.quic.recovery import QuicPacketSpace

from tunnel_rs.proto import aioquic_contract
from tunnel_rs.values import SocketAddr

aioquic_contract.check()

ALPN = "/iroh-qad/0"
DEFAULT_PORT = 7842
PARAMETER = 0x9F81A176
FRAME_IPV4, FRAME_IPV6 = 0x9F81A6, 0x9F81A7
FINISHED = 1
"""Application close code of a client that has what it wanted."""

CONNECTION_ID_LENGTH = 8
IDLE_TIMEOUT = 35.0
KEEP_ALIVE = 25.0
INITIAL_RTT = 0.111

SENDS_REPORTS, WANTS_REPORTS, BOTH = 0, 1, 2

_CERT_REQUIRED = 2  # as ssl.CERT_REQUIRED: protocol code does not import ssl
_DATAGRAM_SIZE = 1200
_MAX_PARAMETERS = 4096


class Observation(NamedTuple):
    """One report: of several, that with the highest sequence number counts."""

    sequence: int
    address: SocketAddr


def encode_observation(observation: Observation) -> tuple[int, bytes]:
    """Frame type and what follows it."""
    ip = ip_address(observation.address.ip)
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    body = encode_uint_var(observation.sequence) + ip.packed
    frame_type = FRAME_IPV6 if ip.version == 6 else FRAME_IPV4
    return frame_type, body + observation.address.port.to_bytes(2, "big")


def decode_observation(frame_type: int, buffer: Buffer) -> Observation:
    """Read what follows the frame type. Raises BufferReadError when it is cut off."""
    sequence = buffer.pull_uint_var()
    packed = buffer.pull_bytes(16 if frame_type == FRAME_IPV6 else 4)
    ip = ip_address(packed)
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return Observation(sequence, SocketAddr(str(ip), buffer.pull_uint16()))


def encode_role(role: int) -> bytes:
    """The transport parameter (RFC 9000 section 18)."""
    value = encode_uint_var(role)
    return encode_uint_var(PARAMETER) + encode_uint_var(len(value)) + value


def decode_role(parameters: bytes) -> int | None:
    """The role in a block of transport parameters; None when the peer does not do address
    discovery. Raises ValueError for a value that is none."""
    buffer = Buffer(data=parameters[:_MAX_PARAMETERS])
    try:
        while not buffer.eof():
            identifier, length = buffer.pull_uint_var(), buffer.pull_uint_var()
            value = buffer.pull_bytes(length)
            if identifier == PARAMETER:
                return _role(value)
    except BufferReadError:
        raise ValueError("transport parameters are cut off") from None
    return None


def _role(value: bytes) -> int:
    inner = Buffer(data=value)
    role = inner.pull_uint_var()
    if role > BOTH or not inner.eof():
        raise ValueError("no valid role for address discovery")
    return role


@dataclass(frozen=True, slots=True)
class Trust:
    """Which certificates a client accepts: those of PEM text, and of files and directories in
    OpenSSL's form."""

    pem: bytes | None = None
    file: str | None = None
    directory: str | None = None


class QadConnection(QuicConnection):
    """What both sides share: the parameter, the frames, no streams."""

    _role: int

    def __init__(self, configuration: QuicConfiguration, **given: Any) -> None:
        super().__init__(configuration=configuration, **given)
        self.peer_role: int | None = None
        self.has_heard = False
        """Whether any valid packet of the peer has come."""
        self.issued: list[bytes] = []
        self.retired: list[bytes] = []
        """Our connection ids that came or went since the owner last looked and cleared these."""
        for name in ("bidi", "uni"):
            limit = Limit(
                frame_type=getattr(QuicFrameType, f"MAX_STREAMS_{name.upper()}"),
                name=f"max_streams_{name}",
                value=0,
            )
            setattr(self, f"_local_max_streams_{name}", limit)
        handlers: dict[int, Any] = getattr(self, aioquic_contract.FRAME_HANDLERS)
        for frame_type in (FRAME_IPV4, FRAME_IPV6):
            handlers[frame_type] = (self._handle_observation, frozenset([tls.Epoch.ONE_RTT]))

    @property
    def ending(self) -> events.ConnectionTerminated | None:
        """Why the connection ends or has ended, as soon as that is known."""
        return self._close_event

    @property
    def is_terminated(self) -> bool:
        """The state may be dropped: the closing or draining period is over."""
        return self._state is QuicConnectionState.TERMINATED

    @property
    def is_established(self) -> bool:
        return bool(self._handshake_complete)

    @property
    def remote_address(self) -> Any:
        """Where the peer's packets come from, as it was given to `receive_datagram`."""
        return self._network_paths[0].addr

    def _payload_received(
        self, context: QuicReceiveContext, plain: bytes, crypto_frame_required: bool = False
    ) -> tuple[bool, bool]:
        self.has_heard = True
        return super()._payload_received(context, plain, crypto_frame_required)

    def _serialize_transport_parameters(self) -> bytes:
        return super()._serialize_transport_parameters() + encode_role(self._role)

    def _parse_transport_parameters(self, data: bytes, from_session_ticket: bool = False) -> None:
        super()._parse_transport_parameters(data, from_session_ticket)
        try:
            self.peer_role = decode_role(data)
        except ValueError as error:
            raise QuicConnectionError(
                QuicErrorCode.TRANSPORT_PARAMETER_ERROR, QuicFrameType.CRYPTO, str(error)
            ) from None

    def _handle_observation(
        self, context: QuicReceiveContext, frame_type: int, buf: Buffer
    ) -> None:
        observation = decode_observation(frame_type, buf)
        if self._role == SENDS_REPORTS:
            raise QuicConnectionError(
                QuicErrorCode.PROTOCOL_VIOLATION, frame_type, "an address report nobody asked for"
            )
        self._observed(observation)

    def _observed(self, observation: Observation) -> None:
        """A report has come; a client keeps it."""

    def process(self) -> None:
        """Take note of what the latest datagrams brought."""
        while (event := self.next_event()) is not None:
            if isinstance(event, events.ConnectionIdIssued):
                self.issued.append(event.connection_id)
            elif isinstance(event, events.ConnectionIdRetired):
                self.retired.append(event.connection_id)


def _configuration(*, is_client: bool, **more: Any) -> QuicConfiguration:
    return QuicConfiguration(
        alpn_protocols=[ALPN],
        connection_id_length=CONNECTION_ID_LENGTH,
        idle_timeout=IDLE_TIMEOUT,
        initial_rtt=INITIAL_RTT,
        is_client=is_client,
        max_datagram_size=_DATAGRAM_SIZE,
        supported_versions=[QuicProtocolVersion.VERSION_1],
        **more,
    )


class QadClient(QadConnection):
    """Asks a server for our address. The connection stays open to hear of changes."""

    _role = WANTS_REPORTS

    def __init__(self, server_name: str, trust: Trust) -> None:
        """`server_name`: host name or IP literal that the certificate must be for. Call `connect`
        next."""
        configuration = _configuration(is_client=True)
        configuration.server_name = server_name
        configuration.verify_mode = _CERT_REQUIRED
        configuration.cadata = trust.pem
        configuration.cafile = trust.file
        configuration.capath = trust.directory
        super().__init__(configuration)
        self.observation: Observation | None = None
        """The latest report."""

    @property
    def round_trip(self) -> float | None:
        """Smoothed, in seconds; None before the first measurement."""
        return self._loss._rtt_smoothed if self._loss._rtt_initialized else None

    def _observed(self, observation: Observation) -> None:
        if self.observation is None or observation.sequence > self.observation.sequence:
            self.observation = observation

    def finish(self) -> None:
        """Close: we have what we wanted."""
        self.close(error_code=FINISHED, reason_phrase="finished")


class ServerIdentity(NamedTuple):
    """Certificate chain, own first, and private key, in the forms of `cryptography`."""

    certificate: Any
    chain: list[Any]
    private_key: Any

    @classmethod
    def from_pem(cls, chain: bytes, private_key: bytes) -> "ServerIdentity":
        """Raises ValueError for what is no PEM, TypeError for a key with a passphrase."""
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
        from cryptography.x509 import load_pem_x509_certificates

        certificates = load_pem_x509_certificates(chain)
        return cls(certificates[0], certificates[1:], load_pem_private_key(private_key, None))


class QadServer(QadConnection):
    """Tells a client its address: once the handshake is complete, and whenever it changes."""

    _role = SENDS_REPORTS

    def __init__(
        self,
        identity: ServerIdentity,
        *,
        to_value: Callable[[Any], SocketAddr],
        original_destination_connection_id: bytes,
        retry_source_connection_id: bytes | None = None,
    ) -> None:
        """`to_value` turns an address as given to `receive_datagram` into a value."""
        configuration = _configuration(is_client=False)
        configuration.certificate = identity.certificate
        configuration.certificate_chain = identity.chain
        configuration.private_key = identity.private_key
        super().__init__(
            configuration,
            original_destination_connection_id=original_destination_connection_id,
            retry_source_connection_id=retry_source_connection_id,
        )
        self._to_value = to_value
        self._reported: Any = None
        self._sequence = 0
        self._report: Observation | None = None

    def process(self) -> None:
        super().process()
        if not self.is_established or self.peer_role not in (WANTS_REPORTS, BOTH):
            return
        if self.remote_address != self._reported:
            self._reported = self.remote_address
            self._report = Observation(self._sequence, self._to_value(self._reported))
            self._sequence += 1

    def _write_connection_limits(self, builder: QuicPacketBuilder, space: QuicPacketSpace) -> None:
        super()._write_connection_limits(builder, space)
        if self._report is None:
            return
        report = self._report
        frame_type, body = encode_observation(report)
        capacity = size_uint_var(frame_type) + len(body)
        buffer = builder.start_frame(
            frame_type, capacity, self._on_report_delivery, handler_args=(report,)
        )
        buffer.push_bytes(body)
        self._report = None

    def _on_report_delivery(self, delivery: QuicDeliveryState, report: Observation) -> None:
        # A later report makes a lost one worthless.
        if delivery is QuicDeliveryState.LOST and report.sequence == self._sequence - 1:
            self._report = report
