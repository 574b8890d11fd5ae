import asyncio
import base64
import json
from collections.abc import AsyncIterator

import aiohttp
import dnslib
import pytest
from aiohttp.test_utils import make_mocked_request
from tests.support.discovery import LOOPBACK, NOW, ORIGIN, dns_server, packet

from tunnel_rs.proto.dns_wire import RecordType, encode_query, parse_name
from tunnel_rs.proto.pkarr import EndpointRecord
from tunnel_rs.selfhost.discovery_http import client_source
from tunnel_rs.selfhost.dns_server import DnsServer
from tunnel_rs.selfhost.dns_settings import DnsSettings, PutRateLimit

Z32 = packet().endpoint_id.z32
NAME = f"_iroh.{Z32}.{ORIGIN}"
QUERY = encode_query(parse_name(NAME), RecordType.TXT, 0)


class Answer:
    """A response, read to its end."""

    def __init__(self, response: aiohttp.ClientResponse, body: bytes) -> None:
        self.status = response.status
        self.headers = response.headers
        self.content_type = response.content_type
        self.body = body


class Http:
    """A client of one server."""

    def __init__(self, server: DnsServer, session: aiohttp.ClientSession) -> None:
        self.server = server
        self._session = session

    async def __call__(self, method: str, path: str, **options: object) -> Answer:
        url = f"http://{self.server.http_address}{path}"
        async with self._session.request(method, url, **options) as response:  # type: ignore[arg-type]
            return Answer(response, await response.read())


@pytest.fixture
async def http() -> AsyncIterator[Http]:
    async with (
        dns_server(pkarr_put_rate_limit=PutRateLimit.DISABLED) as server,
        aiohttp.ClientSession(skip_auto_headers=["Accept", "Content-Type"]) as session,
    ):
        yield Http(server, session)


def detail(answer: Answer) -> str:
    """The text of an error body, which names its status too."""
    body = json.loads(answer.body)
    assert body["status"] == str(answer.status)
    return str(body["detail"])


async def test_a_packet_is_put_and_got_byte_for_byte(http: Http) -> None:
    put = await http("PUT", f"/pkarr/{Z32}", data=packet().payload)
    assert (put.status, put.body) == (204, b"")
    got = await http("GET", f"/pkarr/{Z32}")
    assert (got.status, got.body) == (200, packet().payload)
    assert got.content_type == "application/x-pkarr-signed-packet"


async def test_an_older_and_an_identical_packet_are_accepted_and_ignored(http: Http) -> None:
    newer = packet(record=EndpointRecord(("https://new.example/",)), timestamp=NOW + 5)
    for signed in (newer, packet(), newer):
        assert (await http("PUT", f"/pkarr/{Z32}", data=signed.payload)).status == 204
    assert (await http("GET", f"/pkarr/{Z32}")).body == newer.payload


async def test_a_chunked_body_is_read(http: Http) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for byte in packet().payload:
            yield bytes((byte,))

    assert (await http("PUT", f"/pkarr/{Z32}", data=chunks())).status == 204


@pytest.mark.parametrize("key", ["", "abc", Z32[:-1], Z32.upper(), packet().endpoint_id.key.hex()])
@pytest.mark.parametrize("method", ["GET", "PUT"])
async def test_a_bad_key_is_400(http: Http, method: str, key: str) -> None:
    answer = await http(method, f"/pkarr/{key}")
    assert answer.status == 400
    assert detail(answer).startswith("invalid key")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        bytes(71),
        bytes(72),
        packet().payload[:-1],
        packet().payload + b"\0",
        bytes([packet().payload[0] ^ 1]) + packet().payload[1:],
        packet(2).payload,
        bytes(1073),
        bytes(1_000_000),
    ],
)
async def test_a_bad_body_or_signature_is_400_and_changes_nothing(http: Http, body: bytes) -> None:
    answer = await http("PUT", f"/pkarr/{Z32}", data=body)
    assert answer.status == 400
    assert detail(answer)
    assert (await http("GET", f"/pkarr/{Z32}")).status == 404
    assert http.server.metrics.pkarr_publish_error == 1


async def test_an_unknown_endpoint_is_404(http: Http) -> None:
    assert "no record" in detail(answer := await http("GET", f"/pkarr/{Z32}"))
    assert answer.status == 404


async def test_everything_is_open_to_browsers(http: Http) -> None:
    for path in ("/", "/nowhere", f"/pkarr/{Z32}", "/dns-query", "/healthz"):
        answer = await http("GET", path)
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
    preflight = await http("OPTIONS", f"/pkarr/{Z32}")
    assert preflight.status == 200
    assert set(preflight.headers["Access-Control-Allow-Methods"].split(",")) == {
        "GET",
        "POST",
        "PUT",
    }


async def test_health_and_greeting(http: Http) -> None:
    health = await http("GET", "/healthz")
    assert json.loads(health.body).keys() == {"status", "version", "git_hash"}
    assert json.loads(health.body)["status"] == "ok"
    assert (await http("GET", "/healthcheck")).body == b"OK"
    assert (await http("GET", "/")).body == b"Hi!"
    assert (await http("HEAD", "/healthcheck")).status == 200


@pytest.mark.parametrize("path", ["/nowhere", "/pkarr", "/dns-query/", "/metrics", "/healthz/x"])
async def test_other_paths_are_404(http: Http, path: str) -> None:
    assert (await http("GET", path)).status == 404


@pytest.mark.parametrize(
    ("method", "path"), [("POST", f"/pkarr/{Z32}"), ("DELETE", "/"), ("PUT", "/dns-query")]
)
async def test_other_methods_are_405(http: Http, method: str, path: str) -> None:
    answer = await http(method, path)
    assert answer.status == 405
    assert "GET" in answer.headers["Allow"]


async def test_dns_over_https_answers_a_message(http: Http) -> None:
    await http("PUT", f"/pkarr/{Z32}", data=packet().payload)
    encoded = base64.urlsafe_b64encode(QUERY).decode().rstrip("=")
    headers = {"Content-Type": "application/dns-message"}
    for answer in (
        await http("GET", f"/dns-query?dns={encoded}"),
        await http("GET", f"/dns-query?dns={encoded}", headers={"Accept": "*/*"}),
        await http("POST", "/dns-query", data=QUERY, headers=headers),
    ):
        assert (answer.status, answer.content_type) == (200, "application/dns-message")
        assert answer.headers["Cache-Control"] == "s-maxage=30"
        parsed = dnslib.DNSRecord.parse(answer.body)
        assert [str(rr.rdata) for rr in parsed.rr] == ['"relay=https://relay.example/"']


@pytest.mark.parametrize("accept", [None, "application/dns-json", "application/x-javascript"])
async def test_dns_over_https_answers_json(http: Http, accept: str | None) -> None:
    await http("PUT", f"/pkarr/{Z32}", data=packet().payload)
    headers = {"Accept": accept} if accept else {}
    answer = await http("GET", f"/dns-query?name={NAME}&type=TXT", headers=headers)
    assert (answer.status, answer.content_type) == (200, "application/dns-json")
    body = json.loads(answer.body)
    assert [each["data"] for each in body["Answer"]] == ['"relay=https://relay.example/"']


async def test_an_unknown_name_is_a_dns_answer_not_an_http_error(http: Http) -> None:
    answer = await http("GET", f"/dns-query?name={NAME}&type=TXT")
    assert (answer.status, json.loads(answer.body)["Status"]) == (200, 3)


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", f"/dns-query?name={NAME}", {"Accept": "text/html"}, 406),
        ("GET", "/dns-query", {}, 400),
        ("GET", "/dns-query?dns=AAAA", {}, 400),
        ("GET", "/dns-query?name=a..b", {}, 400),
        ("POST", "/dns-query", {"Content-Type": "text/plain"}, 415),
        ("POST", "/dns-query", {"Content-Type": "application/dns-message"}, 400),
    ],
)
async def test_bad_dns_over_https_requests_are_refused(
    http: Http, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    answer = await http(method, path, headers=headers)
    assert answer.status == status
    assert detail(answer)


async def test_too_many_publications_of_one_address_are_429() -> None:
    async with (
        dns_server(puts_per_second=0.001, put_burst=2) as server,
        aiohttp.ClientSession() as session,
    ):
        http = Http(server, session)
        statuses = [
            (await http("PUT", f"/pkarr/{Z32}", data=packet().payload)).status for _ in range(4)
        ]
        assert statuses == [204, 204, 429, 429]
        assert (await http("GET", f"/pkarr/{Z32}")).status == 200
        forged = {"X-Forwarded-For": "192.0.2.7"}
        answer = await http("PUT", f"/pkarr/{Z32}", data=packet().payload, headers=forged)
        assert (answer.status, answer.headers["Retry-After"]) == (429, "1")


async def test_behind_a_proxy_each_client_has_its_own_limit() -> None:
    async with (
        dns_server(
            puts_per_second=0.001, put_burst=1, pkarr_put_rate_limit=PutRateLimit.SMART
        ) as server,
        aiohttp.ClientSession() as session,
    ):
        http = Http(server, session)

        async def put(claimed: str) -> int:
            headers = {"X-Forwarded-For": claimed}
            answer = await http("PUT", f"/pkarr/{Z32}", data=packet().payload, headers=headers)
            return answer.status

        assert await put("192.0.2.1") == 204
        assert await put("192.0.2.2") == 204
        assert await put("203.0.113.9, 192.0.2.2") == 429


async def test_too_many_queries_over_http_are_429() -> None:
    dns = DnsSettings(bind=LOOPBACK, origins=(ORIGIN,), tcp_queries_per_second=0.6)
    async with dns_server(dns=dns) as server, aiohttp.ClientSession() as session:
        http = Http(server, session)
        assert (await http("GET", f"/dns-query?name={NAME}")).status == 200
        for path in (f"/dns-query?name={NAME}", f"/pkarr/{Z32}"):
            answer = await http("GET", path)
            assert (answer.status, answer.headers["Retry-After"]) == (429, "1")
        assert (await http("GET", "/healthcheck")).status == 200


@pytest.mark.parametrize(
    ("headers", "source"),
    [
        ({}, ""),
        ({"X-Forwarded-For": "203.0.113.9, 192.0.2.1"}, "192.0.2.1/32"),
        ({"X-Forwarded-For": "2001:db8::1"}, "2001:db8::/64"),
        ({"X-Forwarded-For": "nobody", "X-Real-IP": "192.0.2.2"}, "192.0.2.2/32"),
        ({"Forwarded": 'for="[2001:db8::7]:99"'}, "2001:db8::/64"),
        ({"Forwarded": "for=192.0.2.3;proto=http"}, "192.0.2.3/32"),
        ({"Forwarded": "for=unknown"}, ""),
    ],
)
def test_the_source_behind_a_proxy_is_what_the_proxy_added(
    headers: dict[str, str], source: str
) -> None:
    request = make_mocked_request("PUT", "/", headers=headers)
    assert client_source(request, smart=True) == source
    assert client_source(request, smart=False) == ""


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PUT /pkarr/x HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"PUT /pkarr/x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzzzz\r\n",
        b"GET / HTTP/1.1\r\n" + b"A: " + b"x" * 20_000 + b"\r\n\r\n",
        b"\0" * 100_000,
    ],
)
async def test_garbage_ends_its_own_connection_only(
    http: Http, garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    address = http.server.http_address
    assert address is not None
    reader, writer = await asyncio.open_connection(address.ip, address.port)
    writer.write(garbage)
    writer.write_eof()
    try:
        answer = await reader.read()
    except ConnectionResetError:
        answer = b""
    writer.close()
    assert not answer or b" 400 " in answer.partition(b"\r\n")[0]
    assert (await http("GET", "/healthcheck")).body == b"OK"
    assert "Traceback" not in caplog.text


async def test_a_body_that_breaks_off_publishes_nothing(http: Http) -> None:
    address = http.server.http_address
    assert address is not None
    _, writer = await asyncio.open_connection(address.ip, address.port)
    body = packet().payload
    head = f"PUT /pkarr/{Z32} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body[:-1])
    writer.close()
    await writer.wait_closed()
    assert (await http("GET", f"/pkarr/{Z32}")).status == 404
