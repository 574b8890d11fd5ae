"""Tests of `tunnel_rs.net.upnp`. A real router is asked in tests/netns."""

import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Address

import pytest
from aiohttp import web

from tunnel_rs.errors import ProtocolError, UnreachableError
from tunnel_rs.net import upnp as module
from tunnel_rs.net.datagrams import Batch, DatagramSocket
from tunnel_rs.net.upnp import UpnpPort
from tunnel_rs.proto.upnp import GROUP, MAX_DOCUMENT, RefusedError
from tunnel_rs.values import SocketAddr

HERE = IPv4Address("127.0.0.1")
KIND = "urn:schemas-upnp-org:service:WANIPConnection:1"
SERVICE = f"<serviceType>{KIND}</serviceType><controlURL>/ctl</controlURL>"
DESCRIPTION = f"<root><service>{SERVICE}</service></root>"


class Router:
    """Answers a search on loopback, and requests over HTTP."""

    def __init__(self) -> None:
        self.description = DESCRIPTION
        self.external = "198.51.100.21"
        self.refusals: list[int] = []
        self.mapped: dict[int, tuple[int, int]] = {}
        self.port = 0
        self.location = "http://127.0.0.1:{port}/root.xml"
        self.searches: DatagramSocket | None = None

    def searched(self, batch: Batch) -> None:
        for _, source in batch:
            answer = (
                "HTTP/1.1 200 OK\r\nST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n"
                f"LOCATION: {self.location.format(port=self.port)}\r\n\r\n"
            )
            assert self.searches is not None
            self.searches.send(answer.encode(), source)

    async def describe(self, request: web.Request) -> web.Response:
        return web.Response(text=self.description)

    async def act(self, request: web.Request) -> web.Response:
        text = await request.text()
        name = request.headers["SOAPAction"].partition("#")[2].rstrip('"')
        if name == "GetExternalIPAddress":
            return self.said(f"<NewExternalIPAddress>{self.external}</NewExternalIPAddress>")
        if self.refusals:
            code = self.refusals.pop(0)
            fault = f"<s:Fault><errorCode>{code}</errorCode></s:Fault>"
            return self.said(fault, status=500)
        found = dict(re.findall(r"<New(\w+)>([^<]*)<", text))
        external = int(found["ExternalPort"])
        if name == "DeletePortMapping":
            del self.mapped[external]
        else:
            self.mapped[external] = int(found["InternalPort"]), int(found["LeaseDuration"])
        return self.said("")

    def said(self, inner: str, status: int = 200) -> web.Response:
        text = f'<s:Envelope xmlns:s="x"><s:Body>{inner}</s:Body></s:Envelope>'
        return web.Response(status=status, text=text, content_type="text/xml")


def group_socket() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    membership = socket.inet_aton(GROUP.ip) + socket.inet_aton("127.0.0.1")
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
    # Answers must come from the router's address, as they do from a router.
    sock.bind(("0.0.0.0", GROUP.port))
    return sock


@asynccontextmanager
async def router() -> AsyncIterator[tuple[Router, UpnpPort]]:
    one = Router()
    app = web.Application()
    app.router.add_get("/root.xml", one.describe)
    app.router.add_post("/ctl", one.act)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    one.port = runner.addresses[0][1]
    one.searches = DatagramSocket(group_socket(), one.searched)
    mapping = UpnpPort(HERE, 4444)
    try:
        yield one, mapping
    finally:
        await mapping.close()
        one.searches.close()
        await runner.cleanup()


async def test_a_port_is_obtained_renewed_and_released() -> None:
    async with router() as (one, mapping):
        lease = await mapping.obtain(5555)
        assert lease.external == SocketAddr("198.51.100.21", 5555)
        assert one.mapped == {5555: (4444, lease.lifetime)}
        assert await mapping.obtain(5555) == lease
        await mapping.release()
        assert one.mapped == {}


async def test_our_own_port_is_asked_for_when_no_other_is_wanted() -> None:
    async with router() as (_, mapping):
        assert (await mapping.obtain(0)).external.port == 4444


async def test_a_taken_port_is_replaced_by_another() -> None:
    async with router() as (one, mapping):
        one.refusals = [718]
        lease = await mapping.obtain(5555)
        assert lease.external.port != 5555
        assert list(one.mapped) == [lease.external.port]


async def test_a_router_that_knows_no_leases_gets_none() -> None:
    async with router() as (one, mapping):
        one.refusals = [725]
        await mapping.obtain(5555)
        assert one.mapped == {5555: (4444, 0)}


@pytest.mark.parametrize("codes", [[606], [718] * 9, [725, 725]])
async def test_a_refusal_is_told(codes: list[int]) -> None:
    async with router() as (one, mapping):
        one.refusals = codes
        with pytest.raises(ProtocolError, match="refused a port"):
            await mapping.obtain(5555)


async def test_a_router_behind_a_nat_is_no_help() -> None:
    async with router() as (one, mapping):
        one.external = "192.168.0.7"
        with pytest.raises(ProtocolError, match="not one of the internet"):
            await mapping.obtain(5555)
        assert one.mapped == {}


@pytest.mark.parametrize("description", ["<root/>", "no xml", "x" * (MAX_DOCUMENT + 1)])
async def test_a_description_without_a_service_is_no_help(description: str) -> None:
    async with router() as (one, mapping):
        one.description = description
        with pytest.raises(ProtocolError):
            await mapping.obtain(5555)


async def test_a_router_that_leads_elsewhere_is_not_followed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "SEARCH_WAITS", (0.05,))
    async with router() as (one, mapping):
        one.location = "http://localhost:{port}/root.xml"
        with pytest.raises(UnreachableError, match="no answer by UPnP"):
            await mapping.obtain(5555)


async def test_a_page_that_is_not_there_is_no_help() -> None:
    async with router() as (one, mapping):
        one.location = "http://127.0.0.1:{port}/other.xml"
        with pytest.raises(ProtocolError, match="HTTP 404"):
            await mapping.obtain(5555)


async def test_a_port_where_nobody_listens_is_no_help() -> None:
    async with router() as (one, mapping):
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            one.location = f"http://127.0.0.1:{unused.getsockname()[1]}/root.xml"
            with pytest.raises(UnreachableError, match="127.0.0.1"):
                await mapping.obtain(5555)


async def test_nothing_is_released_that_was_not_obtained() -> None:
    async with router() as (one, mapping):
        one.refusals = [606]
        with pytest.raises(RefusedError):
            await mapping.obtain(5555)
        await mapping.release()
