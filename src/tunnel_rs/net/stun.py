"""Ask STUN servers how a UDP socket of ours looks from outside."""

import asyncio
import os

from tunnel_rs.errors import ProtocolError, UnreachableError
from tunnel_rs.net.udp import SockAddr, TrainSink, UdpSocket, sock_addr
from tunnel_rs.proto.stun import (
    FIRST_TIMEOUT,
    TRANSACTION_ID_SIZE,
    TRIES,
    decode_answer,
    encode_request,
    transaction_of,
)
from tunnel_rs.values import SocketAddr


class StunClient:
    """The sink of a socket, or of part of it: what is no answer to us goes to `inner`."""

    def __init__(self, socket: UdpSocket, inner: TrainSink | None = None) -> None:
        self._socket = socket
        self._inner = inner
        self._waiting: dict[bytes, tuple[SockAddr, asyncio.Future[SocketAddr]]] = {}

    async def mapped_address(self, server: SocketAddr) -> SocketAddr:
        """Our address as `server` sees it. Takes up to 7.5 s. Raises UnreachableError without
        an answer, ProtocolError for one that makes no sense."""
        transaction_id = os.urandom(TRANSACTION_ID_SIZE)
        where = sock_addr(server)
        answer: asyncio.Future[SocketAddr] = asyncio.get_running_loop().create_future()
        self._waiting[transaction_id] = where, answer
        request, wait = encode_request(transaction_id), FIRST_TIMEOUT
        try:
            for _ in range(TRIES):
                self._socket.send_train(request, len(request), where)
                try:
                    async with asyncio.timeout(wait):
                        return await asyncio.shield(answer)
                except TimeoutError:
                    wait *= 2
        finally:
            del self._waiting[transaction_id]
            answer.cancel()
        raise UnreachableError(f"{server}: no answer")

    def receive_train(self, train: memoryview, segment_size: int, address: SockAddr) -> None:
        if self._inner is not None and not self._expects(address):
            self._inner.receive_train(train, segment_size, address)
            return
        for start in range(0, len(train), segment_size):
            datagram = train[start : start + segment_size]
            if not self._take(datagram, address) and self._inner is not None:
                self._inner.receive_train(datagram, segment_size, address)

    def _expects(self, address: SockAddr) -> bool:
        """Whether an answer may come from there; trains from elsewhere stay whole."""
        return any(where[:2] == address[:2] for where, _ in self._waiting.values())

    def _take(self, datagram: memoryview, address: SockAddr) -> bool:
        # QUIC's first byte has one of these bits, STUN's none (RFC 9443 section 2).
        transaction_id = None if datagram[0] & 0xC0 else transaction_of(datagram)
        waiting = self._waiting.get(transaction_id) if transaction_id is not None else None
        if waiting is None or waiting[0][:2] != address[:2]:
            return False
        if not waiting[1].done():
            try:
                waiting[1].set_result(decode_answer(datagram))
            except ProtocolError as error:
                waiting[1].set_exception(error)
        return True

    def end_batch(self) -> None:
        if self._inner is not None:
            self._inner.end_batch()

    def writable(self) -> None:
        if self._inner is not None:
            self._inner.writable()
