"""The original's ICE modes, as far as its source tells (spec `ice.md` sections 1.5 to 1.7): it has
no field and no certificate of ours, a STUN socket that answers nobody, and keeps one socket only.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import aioice
from aioice.candidate import Candidate, candidate_priority
from aioice.ice import StunProtocol, server_reflexive_candidate

from tests.support.ice_scene import CLIENT_KEY, SERVER_KEY
from tests.support.sockets import until
from tunnel_rs.ice.nostr_client import wall_clock
from tunnel_rs.net.link import StreamReceiver
from tunnel_rs.net.nostr import NostrRelays
from tunnel_rs.net.quic import QuicEndpoint
from tunnel_rs.net.quic_connection import QuicConnection
from tunnel_rs.net.quic_stream import QuicStream
from tunnel_rs.proto.certificates import Certificate, CertificateCredentials
from tunnel_rs.proto.ice_messages import IceParameters
from tunnel_rs.proto.nostr_events import Conversation, Event, EventType, Signal
from tunnel_rs.proto.transport_settings import TransportSettings
from tunnel_rs.reports import silent
from tunnel_rs.values import EndpointId

PEER = "the peer"


class OriginalIce(aioice.Connection):
    """str0m as the original drives it."""

    def __init__(self, *, controlling: bool, host: str, stun: tuple[str, int] | None) -> None:
        super().__init__(controlling, local_username="u" * 16, local_password="p" * 22)
        self.remote_is_lite = True  # regular nomination
        self.on_payload: Callable[[bytes], None] = lambda _: None
        self._host = host
        self._stun = stun
        self._wild: StunProtocol | None = None
        self._local_candidates_start = self._local_candidates_end = True

    async def gather(self) -> None:
        await self._socket(self._host)
        if self._stun is not None:
            self._wild = await self._socket("0.0.0.0", announced=False)
            seen, _ = await server_reflexive_candidate(self._wild, self._stun)
            seen.related_address, seen.related_port = "0.0.0.0", 0
            self._wild.local_candidate = seen
            self._local_candidates.append(seen)

    async def _socket(self, ip: str, *, announced: bool = True) -> StunProtocol:
        loop = asyncio.get_running_loop()
        _, protocol = await loop.create_datagram_endpoint(
            lambda: StunProtocol(self), local_addr=(ip, 0)
        )
        port = protocol.transport.get_extra_info("sockname")[1]
        priority = candidate_priority(1, "host")
        protocol.local_candidate = Candidate("1", 1, "udp", priority, ip, port, "host")
        self._protocols.append(protocol)
        if announced:
            self._local_candidates.append(protocol.local_candidate)
        return protocol

    def request_received(self, message: Any, addr: Any, protocol: StunProtocol) -> None:
        if protocol is not self._wild:
            super().request_received(message, addr, protocol)

    def data_received(self, data: bytes, component: int) -> None:
        self.on_payload(data)

    @property
    def parameters(self) -> IceParameters:
        candidates = tuple(
            f"candidate:{c.to_sdp()} ufrag {self.local_username}" for c in self._local_candidates
        )
        return IceParameters(self.local_username, self.local_password, candidates)

    async def meet(self, remote: IceParameters) -> None:
        """Connect, then close every socket but the one in use."""
        self.remote_username, self.remote_password = remote.ufrag, remote.password
        for text in remote.candidates:
            words = text.removeprefix("candidate:").split()
            assert text.startswith("candidate:") and words[2] == "udp"
            # str0m reads these words in this order only.
            assert words[6] == "typ" and words[8:] in ([], ["raddr", words[-3], "rport", words[-1]])
            await self.add_remote_candidate(Candidate.from_sdp(text.removeprefix("candidate:")))
        await self.connect()
        kept = self._nominated[1].protocol
        for protocol in self._protocols:
            if protocol is not kept:
                protocol.transport.close()


class _Face:
    """Sends on the nominated pair, whatever address is asked for."""

    def __init__(self, ice: OriginalIce) -> None:
        self._ice = ice

    def reaches(self, address: object) -> bool:
        return True

    def send_train(self, train: bytes | memoryview, segment_size: int, address: object) -> bool:
        pair = self._ice._nominated.get(1)
        for start in range(0, len(train), segment_size):
            if pair is not None:
                datagram = bytes(train[start : start + segment_size])
                pair.protocol.transport.sendto(datagram, pair.remote_addr)
        return True

    def text(self, address: object) -> str:
        return PEER

    def error(self, address: object) -> str:
        return ""

    def largest_datagram(self, address: object) -> int:
        return 1200

    def receive_room(self) -> None:
        """Not known."""

    def validates(self, address: object) -> bool:
        return False

    def close(self) -> None: ...


class Original:
    """One session of the original: ICE and QUIC, without any request on a stream."""

    def __init__(
        self,
        *,
        controlling: bool,
        is_server: bool,
        host: str = "127.0.0.1",
        stun: tuple[str, int] | None = None,
    ) -> None:
        self.certificate = Certificate()
        self.ice = OriginalIce(controlling=controlling, host=host, stun=stun)
        credentials = CertificateCredentials(self.certificate, anonymous=EndpointId(bytes(32)))
        settings = TransportSettings(fast_path=False)
        self.quic = QuicEndpoint(credentials, settings, accept=is_server, alpn=None)
        self.quic.add_face(_Face(self.ice))
        self.ice.on_payload = self._arrived

    def _arrived(self, data: bytes) -> None:
        self.quic.receive_train(memoryview(data), len(data), PEER)  # type: ignore[arg-type]
        self.quic.end_batch()

    async def dial(self, remote: IceParameters, fingerprint: EndpointId) -> QuicConnection:
        await self.ice.meet(remote)
        connection = self.quic.dial(fingerprint, [PEER], TransportSettings(fast_path=False))
        await connection.handshaken
        return connection

    async def accept(self, remote: IceParameters) -> QuicConnection:
        await self.ice.meet(remote)
        connection = await self.quic.accept()
        connection.open_window()
        return connection

    async def close(self) -> None:
        self.quic.close(0, "done")
        await self.ice.close()


class Bytes(StreamReceiver):
    """What a stream brought."""

    def __init__(self, stream: QuicStream) -> None:
        self.stream = stream
        self.data = bytearray()
        self.ended = False
        stream.set_receiver(self)

    def data_received(self, data: bytes) -> None:
        self.data += data
        self.stream.consumed(len(data))

    def eof_received(self) -> None:
        self.ended = True

    def reset_received(self, code: int) -> None:
        self.ended = True

    def stop_received(self, code: int) -> None: ...

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...

    def connection_lost(self, error: Exception | None) -> None:
        self.ended = True


async def echoes_tcp(connection: QuicConnection) -> None:
    """The original's client on our server: marker byte, then the bytes."""
    stream = await connection.open_stream()
    received = Bytes(stream)
    stream.write(b"\0hello")
    await until(lambda: received.data == b"hello")
    stream.write_eof()
    await until(lambda: received.ended)


async def serve_as_the_original(connection: QuicConnection, *, udp: bool) -> None:
    """Echo; a TCP stream loses its first byte."""
    while True:
        stream = await connection.accept_stream()
        received = Bytes(stream)
        await until(lambda received=received: len(received.data) > 1)
        stream.write(bytes(received.data if udp else received.data[1:]))


class OriginalOnNostr:
    """The original's end of a conversation; it understands plain text only."""

    def __init__(self, url: str, *, is_server: bool) -> None:
        key, peer = (SERVER_KEY, CLIENT_KEY) if is_server else (CLIENT_KEY, SERVER_KEY)
        self._conversation = Conversation(key, peer.public_key, lambda n: bytes(n))
        self._signals: asyncio.Queue[Signal] = asyncio.Queue()
        self.relays = NostrRelays(
            (url,),
            self._conversation.filter,
            lambda url, challenge: self._conversation.auth_event(url, challenge, wall_clock()),
            self._heard,
            silent,
        )

    def _heard(self, event: Event) -> None:
        signal = self._conversation.understand(event)
        if signal is not None and not signal.encrypted:
            self._signals.put_nowait(signal)

    async def next(self) -> Signal:
        return await self._signals.get()

    def say(self, type: EventType, body: bytes) -> None:
        self.relays.publish(self._conversation.event(type, body, wall_clock(), encrypted=False))
