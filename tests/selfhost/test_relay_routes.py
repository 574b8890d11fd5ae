"""The plain routes of a relay, and which requests become relay connections."""

import aiohttp
import pytest
from tests.support.relay_network import relay_server, url_of

from tunnel_rs import __version__

UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Protocol": "iroh-relay-v2, iroh-relay-v1",
}


async def test_every_route_answers_as_specified() -> None:
    async with relay_server() as server, aiohttp.ClientSession() as http:
        origin = f"http://{server.addresses.http}"
        for path, status, body in (
            ("/ping", 200, ""),
            ("/robots.txt", 200, "User-agent: *\nDisallow: /\n"),
            ("/generate_204", 204, ""),
            ("/nothing", 404, "Not Found"),
            ("/relay/", 404, "Not Found"),
        ):
            async with http.get(origin + path) as answer:
                assert (answer.status, await answer.text()) == (status, body), path
                assert "max-age" in answer.headers["Strict-Transport-Security"]
                assert "default-src" in answer.headers["Content-Security-Policy"]
        for path in ("/", "/index.html"):
            async with http.get(origin + path) as answer:
                assert answer.status == 200 and "relay" in await answer.text()
        async with http.get(origin + "/healthz") as answer:
            health = await answer.json()
            assert set(health) == {"status", "version", "git_hash"}
            assert health["status"] == "ok" and health["version"] == __version__
        async with http.get(origin + "/ping") as answer:
            assert answer.headers["Access-Control-Allow-Origin"] == "*"
        async with http.post(origin + "/ping", data=b"x" * 100_000) as answer:
            assert answer.status == 404


@pytest.mark.parametrize(
    ("challenge", "answered"),
    [("ts_relay.example", True), ("x" * 63, True), ("x" * 64, False), ("a b", False), ("", False)],
)
async def test_the_captive_portal_challenge_is_answered(challenge: str, answered: bool) -> None:
    async with relay_server() as server, aiohttp.ClientSession() as http:
        url = f"http://{server.addresses.http}/generate_204"
        async with http.get(url, headers={"X-Iroh-Challenge": challenge}) as answer:
            expected = f"response {challenge}" if answered else None
            assert answer.status == 204 and answer.headers.get("X-Iroh-Response") == expected


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"Upgrade": "WebSocket"}, 400),
        ({"Upgrade": None}, 400),
        ({"Sec-WebSocket-Key": None}, 400),
        ({"Sec-WebSocket-Key": "short"}, 400),
        ({"Sec-WebSocket-Version": "8"}, 400),
        ({"Sec-WebSocket-Version": None}, 400),
        ({"Sec-WebSocket-Protocol": None}, 400),
        ({"Sec-WebSocket-Protocol": "chat"}, 400),
        ({"Connection": "keep-alive"}, 400),
    ],
)
async def test_a_request_that_is_no_relay_upgrade_is_refused(
    change: dict[str, str | None], status: int
) -> None:
    headers = {name: value for name, value in (UPGRADE | change).items() if value is not None}
    async with relay_server() as server, aiohttp.ClientSession() as http:
        async with http.get(url_of(server).endpoint, headers=headers) as answer:
            assert answer.status == status and await answer.text()
            version = answer.headers.get("Sec-WebSocket-Version")
            assert version == ("13" if "Sec-WebSocket-Version" in change else None)


@pytest.mark.parametrize(
    ("offer", "chosen"),
    [
        ("iroh-relay-v2, iroh-relay-v1", "iroh-relay-v2"),
        ("iroh-relay-v1, iroh-relay-v2", "iroh-relay-v2"),
        ("iroh-relay-v1", "iroh-relay-v1"),
    ],
)
async def test_the_answer_names_one_version_and_no_extension(offer: str, chosen: str) -> None:
    headers = UPGRADE | {
        "Sec-WebSocket-Protocol": offer,
        "Sec-WebSocket-Extensions": "permessage-deflate",
    }
    async with relay_server() as server, aiohttp.ClientSession() as http:
        async with http.get(url_of(server).endpoint, headers=headers) as answer:
            assert answer.status == 101
            assert answer.headers["Sec-WebSocket-Protocol"] == chosen
            assert answer.headers["Sec-WebSocket-Accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
            assert "Sec-WebSocket-Extensions" not in answer.headers
            answer.close()
