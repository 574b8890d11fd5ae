"""The server side of SOCKS5 (RFC 1928): method 0 (no authentication), CONNECT, UDP ASSOCIATE."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, IntEnum
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

from tunnel_rs.errors import ProtocolError
from tunnel_rs.values import Buffer, HostPort, SocketAddr, check_host

_VERSION = 5
_NO_AUTHENTICATION = 0
_NO_METHOD_FITS = 0xFF
_CONNECT = 1
_UDP_ASSOCIATE = 3
_IPV4, _NAME, _IPV6 = 1, 3, 4

MAX_EARLY = 65_536
"""Most bytes held of what a client sends behind its request before it has the answer; one read
may exceed it."""


class Reply(IntEnum):
    """Answers to a request (RFC 1928 section 6)."""

    SUCCEEDED = 0
    GENERAL_FAILURE = 1
    NOT_ALLOWED = 2
    NETWORK_UNREACHABLE = 3
    HOST_UNREACHABLE = 4
    CONNECTION_REFUSED = 5
    TTL_EXPIRED = 6
    COMMAND_NOT_SUPPORTED = 7
    ADDRESS_TYPE_NOT_SUPPORTED = 8


@dataclass(frozen=True, slots=True)
class ConnectRequest:
    """The client wants a TCP connection to `host` (name or IP literal) and `port` (not 0)."""

    host: str
    port: int

    @property
    def address(self) -> HostPort:
        return HostPort(self.host, self.port)


@dataclass(frozen=True, slots=True)
class UdpAssociate:
    """The client wants to send UDP datagrams, from `host` and `port` as far as it knows them;
    an unspecified address or port 0 when it does not."""

    host: str
    port: int


class UdpRequest(NamedTuple):
    """One datagram of the client, and where it is to go."""

    host: str
    port: int
    payload: bytes


class _RefusedError(Exception):
    """A request that is turned down with a reply."""

    def __init__(self, reply: Reply, text: str) -> None:
        super().__init__(text)
        self.reply = reply


class _TooShortError(Exception):
    """More bytes are needed."""


class _Reader:
    """Takes fields off the front of a bounded piece of input. The bytes are not removed."""

    def __init__(self, data: Buffer, position: int = 0) -> None:
        self._data = data
        self.position = position

    def take(self, size: int) -> bytes:
        end = self.position + size
        if end > len(self._data):
            raise _TooShortError
        taken = bytes(self._data[self.position : end])
        self.position = end
        return taken

    def byte(self) -> int:
        return self.take(1)[0]

    def address(self) -> tuple[str, int]:
        """ATYP, address, port (RFC 1928 section 5). The host is checked, the port is not."""
        kind = self.byte()
        if kind == _IPV4:
            host = str(IPv4Address(self.take(4)))
        elif kind == _IPV6:
            host = str(IPv6Address(self.take(16)))
        elif kind == _NAME:
            host = self._name()
        else:
            raise _RefusedError(
                Reply.ADDRESS_TYPE_NOT_SUPPORTED, f"address type {kind} is not of RFC 1928"
            )
        return host, int.from_bytes(self.take(2), "big")

    def _name(self) -> str:
        written = self.take(self.byte())
        try:
            host = written.decode("ascii")
            check_host(host)
        except UnicodeDecodeError:
            raise _RefusedError(Reply.GENERAL_FAILURE, "the host name is not ASCII") from None
        except ValueError as error:
            raise _RefusedError(Reply.GENERAL_FAILURE, str(error)) from None
        return host


def _encode_address(host: str, port: int) -> bytes:
    try:
        address = ip_address(host)
    except ValueError:
        name = host.encode("ascii")
        if not 0 < len(name) < 256:
            raise ValueError("a host name has 1 to 255 characters") from None
        return bytes((_NAME, len(name))) + name + port.to_bytes(2, "big")
    kind = _IPV4 if address.version == 4 else _IPV6
    return bytes((kind,)) + address.packed + port.to_bytes(2, "big")


_Step = Callable[[_Reader], ConnectRequest | UdpAssociate | None]


class _State(Enum):
    GREETING = "waiting for the greeting"
    REQUEST = "waiting for the request"
    ASKED = "waiting for our answer to the request"
    ANSWERED = "done"
    FAILED = "failed"


class Socks5Negotiation:
    """One client's dialogue, from its first byte to our answer.

    After each `feed` send what `data_to_send` gives. When `feed` returned a request, do it and
    call `succeed` or `fail`, send again, and treat `take_rest` as the client's first payload.
    When `feed` raised ProtocolError, send `data_to_send` too (the client may be told why) and
    close.
    """

    def __init__(self) -> None:
        self._state = _State.GREETING
        self._received = bytearray()
        self._outgoing = bytearray()

    def feed(self, data: Buffer) -> ConnectRequest | UdpAssociate | None:
        """Add received bytes; returns the request once, when it is complete.

        Raises ProtocolError when this is no SOCKS5, no method or command of ours, or when more
        than `MAX_EARLY` bytes were sent ahead of the answer.
        """
        if self._state is _State.FAILED:
            raise ProtocolError("the SOCKS5 dialogue has failed already")
        if self._state in (_State.ASKED, _State.ANSWERED) and len(self._received) >= MAX_EARLY:
            raise self._failure("the SOCKS5 client sends too much before it has an answer")
        self._received += data
        if self._state is _State.GREETING:
            self._parse(self._read_greeting)
        if self._state is _State.REQUEST:
            return self._parse(self._read_request)
        return None

    def data_to_send(self) -> bytes:
        """Bytes for the client, handed over once."""
        data = bytes(self._outgoing)
        self._outgoing.clear()
        return data

    def succeed(self, bound: SocketAddr) -> None:
        """Answer that the request is done; `bound` is the address used for it. RuntimeError when
        no request waits for an answer."""
        self._answer(Reply.SUCCEEDED, bound)
        self._state = _State.ANSWERED

    def fail(self, reply: Reply) -> None:
        """Answer why the request cannot be done. RuntimeError when none waits for an answer."""
        if reply is Reply.SUCCEEDED:
            raise ValueError("a failure is not told by SUCCEEDED")
        self._answer(reply, SocketAddr("0.0.0.0", 0))
        self._state = _State.FAILED

    def take_rest(self) -> bytes:
        """Hand over what came behind the request, and forget it."""
        rest = bytes(self._received)
        self._received.clear()
        return rest

    def _answer(self, reply: Reply, bound: SocketAddr) -> None:
        if self._state is not _State.ASKED:
            raise RuntimeError(f"no request to answer: the dialogue is {self._state.value}")
        self._put_reply(reply, bound)

    def _put_reply(self, reply: Reply, bound: SocketAddr) -> None:
        self._outgoing += bytes((_VERSION, reply, 0)) + _encode_address(bound.ip, bound.port)

    def _failure(self, text: str) -> ProtocolError:
        self._state = _State.FAILED
        self._received.clear()
        return ProtocolError(text)

    def _parse(self, read: _Step) -> ConnectRequest | UdpAssociate | None:
        """Run one reading step on what has been received, and drop what it used up."""
        reader = _Reader(self._received)
        try:
            found = read(reader)
        except _TooShortError:
            return None
        except _RefusedError as refusal:
            self._put_reply(refusal.reply, SocketAddr("0.0.0.0", 0))
            raise self._failure(f"SOCKS5 request refused: {refusal}") from None
        del self._received[: reader.position]
        return found

    def _read_greeting(self, reader: _Reader) -> None:
        self._check_version(reader.byte())
        methods = reader.take(reader.byte())
        if _NO_AUTHENTICATION not in methods:
            self._outgoing += bytes((_VERSION, _NO_METHOD_FITS))
            raise self._failure(
                "the SOCKS5 client insists on authentication; configure it without a user name"
            )
        self._outgoing += bytes((_VERSION, _NO_AUTHENTICATION))
        self._state = _State.REQUEST

    def _check_version(self, version: int) -> None:
        if version == _VERSION:
            return
        if version == 4:
            raise self._failure("the client speaks SOCKS4; set it to SOCKS5")
        if chr(version).isascii() and chr(version).isupper():
            raise self._failure("the client speaks HTTP, it seems; set it to SOCKS5")
        raise self._failure("the client does not speak SOCKS5")

    def _read_request(self, reader: _Reader) -> ConnectRequest | UdpAssociate:
        self._check_version(reader.byte())
        command = reader.byte()
        if command not in (_CONNECT, _UDP_ASSOCIATE):
            raise _RefusedError(
                Reply.COMMAND_NOT_SUPPORTED, f"command {command} is not CONNECT or UDP ASSOCIATE"
            )
        reader.byte()  # reserved
        host, port = reader.address()
        if command == _CONNECT and port == 0:
            raise _RefusedError(Reply.GENERAL_FAILURE, "there is no port 0 to connect to")
        self._state = _State.ASKED
        return ConnectRequest(host, port) if command == _CONNECT else UdpAssociate(host, port)


def decode_udp_request(datagram: bytes) -> UdpRequest:
    """Read a datagram of the client (RFC 1928 section 7). Fragments are refused, as the RFC
    allows. Raises ProtocolError; the datagram is then to be dropped."""
    reader = _Reader(datagram)
    try:
        reader.take(2)  # reserved
        if reader.byte() != 0:
            raise ProtocolError("a SOCKS5 datagram in fragments is not supported")
        host, port = reader.address()
    except _TooShortError:
        raise ProtocolError("a SOCKS5 datagram ends within its header") from None
    except _RefusedError as refusal:
        raise ProtocolError(f"a SOCKS5 datagram is refused: {refusal}") from None
    if port == 0:
        raise ProtocolError("a SOCKS5 datagram is refused: there is no port 0 to send to")
    return UdpRequest(host, port, datagram[reader.position :])


def encode_udp_reply(source: SocketAddr | HostPort, payload: Buffer) -> bytes:
    """A datagram for the client that came from `source`."""
    host = source.ip if isinstance(source, SocketAddr) else source.host
    return bytes(3) + _encode_address(host, source.port) + payload
