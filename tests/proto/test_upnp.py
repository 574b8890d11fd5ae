"""Tests of `tunnel_rs.proto.upnp`."""

from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel_rs.errors import ProtocolError
from tunnel_rs.proto import upnp
from tunnel_rs.proto.upnp import Mapping4, RefusedError, Service
from tunnel_rs.values import SocketAddr

ROUTER = "192.168.1.1"
URL = f"http://{ROUTER}:5000/rootDesc.xml"
V1 = "urn:schemas-upnp-org:service:WANIPConnection:1"
V2 = "urn:schemas-upnp-org:service:WANIPConnection:2"
PPP = "urn:schemas-upnp-org:service:WANPPPConnection:1"

FOUND = (
    "HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=120\r\n"
    "ST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n"
    f"EXT:\r\nSERVER: some/1.0\r\nLOCATION: {URL}\r\n\r\n"
).encode()


def description(*offered: tuple[str, str], base: str = "") -> bytes:
    entries = "".join(
        f"<service><serviceType>{kind}</serviceType><controlURL>{url}</controlURL></service>"
        for kind, url in offered
    )
    return (
        '<?xml version="1.0"?><root xmlns="urn:schemas-upnp-org:device-1-0">'
        f"{f'<URLBase>{base}</URLBase>' if base else ''}<device><deviceList><device>"
        f"<serviceList>{entries}</serviceList></device></deviceList></device></root>"
    ).encode()


def soap(inner: str) -> bytes:
    return (
        '<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/">'
        f"<s:Body>{inner}</s:Body></s:Envelope>"
    ).encode()


def fault(code: int, words: str) -> bytes:
    return soap(
        "<s:Fault><faultcode>s:Client</faultcode><detail><UPnPError>"
        f"<errorCode>{code}</errorCode><errorDescription>{words}</errorDescription>"
        "</UPnPError></detail></s:Fault>"
    )


def test_a_search_asks_for_gateways() -> None:
    lines = upnp.search(2).decode().split("\r\n")
    assert lines[0] == "M-SEARCH * HTTP/1.1"
    assert "HOST: 239.255.255.250:1900" in lines
    assert "ST: urn:schemas-upnp-org:device:InternetGatewayDevice:2" in lines


def test_an_answer_to_the_search_leads_to_the_description() -> None:
    assert upnp.description_url(FOUND, ROUTER) == URL


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"192.168.1.1", b"192.168.1.9"),
        (b"http://", b"https://"),
        (b"http://", b"http://user@"),
        (b"http://", b"file://"),
        (b":5000", b":x"),
        (b"200 OK", b"404 No"),
        (b"InternetGatewayDevice", b"MediaServer"),
        (b"SERVER", b"SERVER\xff"),
        (b"LOCATION", b"ELSEWHERE"),
    ],
)
def test_any_other_answer_leads_nowhere(old: bytes, new: bytes) -> None:
    assert upnp.description_url(FOUND.replace(old, new), ROUTER) is None


def test_services_are_found_the_newest_first() -> None:
    document = description((PPP, "/ppp"), (V1, "ctl"), (V2, f"http://{ROUTER}:9/x"))
    assert upnp.services(document, URL, ROUTER) == [
        Service(V2, f"http://{ROUTER}:9/x"),
        Service(V1, f"http://{ROUTER}:5000/ctl"),
        Service(PPP, f"http://{ROUTER}:5000/ppp"),
    ]


def test_a_base_url_counts_when_it_is_the_routers() -> None:
    good = description((V1, "/ctl"), base=f"http://{ROUTER}:7/")
    assert upnp.services(good, URL, ROUTER) == [Service(V1, f"http://{ROUTER}:7/ctl")]
    bad = description((V1, "/ctl"), base="http://10.0.0.1/")
    assert upnp.services(bad, URL, ROUTER) == [Service(V1, f"http://{ROUTER}:5000/ctl")]


def test_services_elsewhere_are_not_used() -> None:
    document = description((V1, "http://10.9.9.9/ctl"), (V1, "file:///etc/passwd"), (V1, ""))
    assert upnp.services(document, URL, ROUTER) == []


def test_a_mapping_names_our_port_and_the_lease() -> None:
    wanted = Mapping4(SocketAddr("192.168.1.2", 4444), 5555, lease=60)
    action = upnp.add_mapping(Service(V1, URL), wanted)
    assert action.headers["SOAPAction"] == f'"{V1}#AddPortMapping"'
    for part in (
        b"<NewExternalPort>5555</NewExternalPort>",
        b"<NewInternalPort>4444</NewInternalPort>",
        b"<NewInternalClient>192.168.1.2</NewInternalClient>",
        b"<NewProtocol>UDP</NewProtocol>",
        b"<NewLeaseDuration>60</NewLeaseDuration>",
    ):
        assert part in action.body
    assert (
        b"#AddAnyPortMapping"
        in upnp.add_mapping(Service(V2, URL), wanted).headers["SOAPAction"].encode()
    )


def test_a_granted_port_is_read_and_else_is_the_one_asked_for() -> None:
    other = soap(
        "<u:AddAnyPortMappingResponse><NewReservedPort>77</NewReservedPort></u:AddAnyPortMappingResponse>"
    )
    assert upnp.granted_port(other.replace(b"u:", b""), 5555) == 77
    assert upnp.granted_port(soap("<AddPortMappingResponse/>"), 5555) == 5555


@pytest.mark.parametrize("port", ["0", "65536", "x", "-1", "9" * 5000, "١"])
def test_a_port_that_is_none_is_refused(port: str) -> None:
    with pytest.raises(ProtocolError):
        upnp.granted_port(soap(f"<NewReservedPort>{port}</NewReservedPort>"), 1)


def test_the_external_address_is_read() -> None:
    document = soap("<NewExternalIPAddress>198.51.100.21</NewExternalIPAddress>")
    assert upnp.granted_address(document) == IPv4Address("198.51.100.21")
    with pytest.raises(ProtocolError, match="no address"):
        upnp.granted_address(soap("<NewExternalIPAddress></NewExternalIPAddress>"))


def test_a_refusal_has_its_code_and_words() -> None:
    with pytest.raises(RefusedError, match=r"ConflictInMappingEntry \(718\)") as caught:
        upnp.check(fault(718, "ConflictInMappingEntry"))
    assert caught.value.code in upnp.CONFLICTS
    with pytest.raises(RefusedError, match=r"\(0\)"):
        upnp.check(soap("<s:Fault/>"))


def test_entities_are_not_read() -> None:
    bomb = (
        b'<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]>'
        b"<root>&b;</root>"
    )
    with pytest.raises(ProtocolError, match="document type"):
        upnp.services(bomb, URL, ROUTER)


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"<root>",
        b"no xml",
        b"<a>" * 100 + b"</a>" * 100,
        b"<r>" + b"<a/>" * 9000 + b"</r>",
        b"<r>" + b"x" * upnp.MAX_DOCUMENT + b"</r>",
        b"<r>x</r>",
    ],
)
def test_a_document_that_is_no_answer_is_refused(document: bytes) -> None:
    with pytest.raises(ProtocolError):
        upnp.check(document)


@given(
    st.binary(max_size=200) | st.sampled_from([description((V1, "/c")), fault(1, "x")]), st.data()
)
def test_no_document_makes_the_reader_fail_otherwise(document: bytes, data: st.DataObject) -> None:
    document = document[: data.draw(st.integers(0, len(document)))]
    for read in (
        lambda: upnp.services(document, URL, ROUTER),
        lambda: upnp.check(document),
        lambda: upnp.granted_port(document, 1),
    ):
        try:
            read()
        except ProtocolError:
            pass
    upnp.description_url(document, ROUTER)
