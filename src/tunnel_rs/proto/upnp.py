"""UPnP Internet Gateway Device, as far as a port mapping needs it. No I/O.

Search (UPnP Device Architecture 1.1 section 1.3), device description (section 2), and the actions
AddPortMapping, AddAnyPortMapping, DeletePortMapping and GetExternalIPAddress of WANIPConnection and
WANPPPConnection. Everything is untrusted: anybody on the local network can claim to be a router.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address
from typing import NamedTuple
from urllib.parse import urljoin, urlsplit
from xml.parsers import expat
from xml.sax.saxutils import escape

from tunnel_rs.errors import ProtocolError
from tunnel_rs.values import SocketAddr

GROUP = SocketAddr("239.255.255.250", 1900)
MAX_DOCUMENT = 65_536
"""Bytes of a description or an answer; real ones have some 5,000."""

LEASE = 3600
"""Seconds asked for; renewed at half time."""

PERMANENT_ONLY = 725
CONFLICTS = frozenset((718, 724, 729))
"""Error codes: only mappings without an end; the port is somebody else's."""

_DEVICE = "urn:schemas-upnp-org:device:InternetGatewayDevice"
_SERVICE = "urn:schemas-upnp-org:service"
_KINDS = (
    f"{_SERVICE}:WANIPConnection:2",
    f"{_SERVICE}:WANIPConnection:1",
    f"{_SERVICE}:WANPPPConnection:1",
)
_MAX_DEPTH, _MAX_TEXT, _MAX_ELEMENTS = 32, 4096, 4096
_MAX_HEADERS = 32


class RefusedError(ProtocolError):
    """The router refused an action; `code` is UPnP's, 0 when it names none."""

    def __init__(self, code: int, words: str) -> None:
        super().__init__(f"the router refused a port (UPnP): {words or 'no reason'} ({code})")
        self.code = code


class Service(NamedTuple):
    """A connection service of a gateway: its type, and the URL of its actions."""

    kind: str
    url: str

    @property
    def grants_any(self) -> bool:
        return self.kind.endswith(":2")


@dataclass(frozen=True, slots=True)
class Mapping4:
    """A UDP port of the router that is to lead to `internal`. `lease` in seconds, 0: no end."""

    internal: SocketAddr
    external_port: int
    lease: int = LEASE


def search(version: int) -> bytes:
    """The question for gateways of `version` 1 or 2, to be sent to `GROUP`."""
    return (
        "M-SEARCH * HTTP/1.1\r\n"
        f"HOST: {GROUP}\r\n"
        'MAN: "ssdp:discover"\r\n'
        "MX: 1\r\n"
        f"ST: {_DEVICE}:{version}\r\n\r\n"
    ).encode()


def description_url(answer: bytes, source: str) -> str | None:
    """Where the gateway that answered a search from `source` describes itself. None for what is
    no such answer: it must lead to who answered, by plain HTTP."""
    try:
        lines = answer[:2048].decode("ascii").split("\r\n")
    except UnicodeDecodeError:
        return None
    if not lines[0].startswith("HTTP/1.1 200"):
        return None
    headers = {
        name.strip().lower(): value.strip()
        for name, colon, value in (line.partition(":") for line in lines[1:_MAX_HEADERS])
        if colon
    }
    if not headers.get("st", "").startswith(_DEVICE):
        return None
    url = headers.get("location", "")
    return url if leads_to(url, source) else None


def leads_to(url: str, ip: str) -> bool:
    """Whether a URL is plain HTTP on the host with this address, written as an address."""
    try:
        parts = urlsplit(url)
        port = parts.port or 80
    except ValueError:
        return False
    return parts.scheme == "http" and parts.hostname == ip and port > 0 and "@" not in parts.netloc


def services(document: bytes, url: str, source: str) -> list[Service]:
    """Connection services in a description fetched from `url`, best first. Raises ProtocolError
    for what is no description. Services elsewhere than on `source` are left out."""
    found: list[Service] = []
    base = url
    fields: dict[str, str] = {}
    for path, text in _elements(document):
        name = path[-1]
        if name == "URLBase" and leads_to(text, source):
            base = text
        elif name in ("serviceType", "controlURL") and path[-2:-1] == ("service",):
            fields[name] = text
        elif name == "service":
            kind, control = fields.get("serviceType", ""), fields.get("controlURL", "")
            target = urljoin(base, control)
            if kind in _KINDS and control and leads_to(target, source):
                found.append(Service(kind, target))
            fields = {}
    return sorted(found, key=lambda service: _KINDS.index(service.kind))


class Action(NamedTuple):
    """A request to POST to the service's URL."""

    headers: Mapping[str, str]
    body: bytes


def add_mapping(service: Service, wanted: Mapping4) -> Action:
    """AddAnyPortMapping where there is that (the router may choose another port), else
    AddPortMapping."""
    arguments = {
        "NewRemoteHost": "",
        "NewExternalPort": str(wanted.external_port),
        "NewProtocol": "UDP",
        "NewInternalPort": str(wanted.internal.port),
        "NewInternalClient": wanted.internal.ip,
        "NewEnabled": "1",
        "NewPortMappingDescription": "tunnel-rs",
        "NewLeaseDuration": str(wanted.lease),
    }
    name = "AddAnyPortMapping" if service.grants_any else "AddPortMapping"
    return _action(service, name, arguments)


def delete_mapping(service: Service, external_port: int) -> Action:
    arguments = {"NewRemoteHost": "", "NewExternalPort": str(external_port), "NewProtocol": "UDP"}
    return _action(service, "DeletePortMapping", arguments)


def external_address(service: Service) -> Action:
    return _action(service, "GetExternalIPAddress", {})


def _action(service: Service, name: str, arguments: Mapping[str, str]) -> Action:
    inner = "".join(f"<{key}>{escape(value)}</{key}>" for key, value in arguments.items())
    body = (
        '<?xml version="1.0"?>\r\n'
        '<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" '
        's:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body>'
        f'<u:{name} xmlns:u="{service.kind}">{inner}</u:{name}></s:Body></s:Envelope>\r\n'
    )
    headers = {
        "Content-Type": 'text/xml; charset="utf-8"',
        "SOAPAction": f'"{service.kind}#{name}"',
    }
    return Action(headers, body.encode())


def granted_port(document: bytes, wanted: int) -> int:
    """The external port out of the answer to `add_mapping`. Raises RefusedError, ProtocolError."""
    text = _answer(document).get("NewReservedPort", str(wanted))
    if not (text.isascii() and text.isdigit() and 0 < int(text[:6]) < 65536):
        raise ProtocolError("the router's answer (UPnP) has no port")
    return int(text)


def granted_address(document: bytes) -> IPv4Address:
    """The address out of the answer to `external_address`. Raises RefusedError, ProtocolError."""
    try:
        return IPv4Address(_answer(document).get("NewExternalIPAddress", ""))
    except AddressValueError:
        raise ProtocolError("the router's answer (UPnP) has no address") from None


def check(document: bytes) -> None:
    """Raises RefusedError when an answer is a refusal, ProtocolError when it is no answer."""
    _answer(document)


def _answer(document: bytes) -> dict[str, str]:
    found: dict[str, str] = {}
    for path, text in _elements(document):
        found.setdefault(path[-1], text)
    if "Fault" in found:
        code = found.get("errorCode", "")[:6]
        words = "".join(c if c.isprintable() else "?" for c in found.get("errorDescription", ""))
        raise RefusedError(int(code) if code.isascii() and code.isdigit() else 0, words[:100])
    if "Envelope" not in found:
        raise ProtocolError("the router's answer (UPnP) is no SOAP")
    return found


def _elements(document: bytes) -> Iterator[tuple[tuple[str, ...], str]]:
    """Local names from the root down and the text of each element, as they end. No document type,
    so no entities: they blow up small documents, or read files. Raises ProtocolError."""
    if len(document) > MAX_DOCUMENT:
        raise ProtocolError(f"a router's document of {len(document)} bytes is too long")
    reader = _Reader()
    try:
        reader.parser.Parse(document, True)
    except expat.ExpatError as error:
        raise ProtocolError(f"a router's document is no XML: {error}") from None
    yield from reader.found


class _Reader:
    """Collects elements from expat, within bounds."""

    def __init__(self) -> None:
        self.found: list[tuple[tuple[str, ...], str]] = []
        self._path: list[str] = []
        self._texts: list[str] = []
        self.parser = expat.ParserCreate()
        self.parser.buffer_text = True
        self.parser.StartDoctypeDeclHandler = self._refuse
        self.parser.EntityDeclHandler = self._refuse
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text

    def _refuse(self, *_: object) -> None:
        raise ProtocolError("a router's document with a document type is not read")

    def _start(self, name: str, _: object) -> None:
        if len(self._path) >= _MAX_DEPTH or len(self.found) >= _MAX_ELEMENTS:
            raise ProtocolError("a router's document has too many elements")
        self._path.append(name.rpartition(":")[2])
        self._texts.append("")

    def _text(self, text: str) -> None:
        if self._texts and len(self._texts[-1]) < _MAX_TEXT:
            self._texts[-1] += text[:_MAX_TEXT]

    def _end(self, _: str) -> None:
        self.found.append((tuple(self._path), self._texts.pop().strip()))
        self._path.pop()
