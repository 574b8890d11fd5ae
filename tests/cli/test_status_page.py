import json
from collections.abc import AsyncIterator, Mapping

import aiohttp
import pytest

from tunnel_rs.cli.status_page import StatusPage
from tunnel_rs.errors import LocalError
from tunnel_rs.values import SocketAddr

ANYWHERE = SocketAddr("127.0.0.1", 0)
TOLD = [{"role": "server", "name": "<script>"}]


class Served:
    def __init__(self) -> None:
        self.page = StatusPage(ANYWHERE, lambda: TOLD)

    async def ask(
        self, path: str, method: str = "GET", headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes, Mapping[str, str]]:
        url = self.page.url.rsplit("/", 2)[0] + path if path.startswith("/") else None
        async with aiohttp.ClientSession() as session:
            asked = session.request(method, url or self.page.url + path, headers=headers or {})
            async with asked as answer:
                return answer.status, await answer.read(), answer.headers


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    served = Served()
    await served.page.start()
    yield served
    await served.page.close()


@pytest.mark.parametrize(
    ("path", "kind", "part"),
    [
        ("", "text/html", b"page.js"),
        ("page.js", "text/javascript", b"status.json"),
        ("page.css", "text/css", b"--ground"),
        ("status.json", "application/json", json.dumps(TOLD).encode()),
    ],
)
async def test_the_page_and_what_it_loads_are_served(
    served: Served, path: str, kind: str, part: bytes
) -> None:
    status, body, headers = await served.ask(path)
    assert status == 200 and part in body
    assert headers["Content-Type"].startswith(kind)
    policy = headers["Content-Security-Policy"].split("; ")
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    assert all("unsafe" not in rule and "http" not in rule for rule in policy)
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("path", ["/", "/status.json", "/x/status.json", "//", "/x/"])
async def test_without_the_secret_path_nothing_is_there(served: Served, path: str) -> None:
    status, body, headers = await served.ask(path)
    assert (status, body) == (404, b"not found\n")
    assert "default-src 'none'" in headers["Content-Security-Policy"]


async def test_the_path_is_another_each_time() -> None:
    assert StatusPage(ANYWHERE, list).url != StatusPage(ANYWHERE, list).url


async def test_a_name_that_leads_here_is_not_served(served: Served) -> None:
    status, _, _ = await served.ask("status.json", headers={"Host": "evil.example"})
    assert status == 404


async def test_only_looking_is_possible(served: Served) -> None:
    assert (await served.ask("status.json", "POST"))[0] == 405
    assert (await served.ask("../x"))[0] == 404
    assert (await served.ask("other"))[0] == 404


async def test_an_address_in_use_is_told(served: Served) -> None:
    port = int(served.page.url.split(":")[2].split("/")[0])
    with pytest.raises(LocalError, match="cannot listen"):
        await StatusPage(SocketAddr("127.0.0.1", port), list).start()


async def test_nothing_is_loaded_from_elsewhere_and_nothing_becomes_markup(served: Served) -> None:
    for path in ("", "page.js", "page.css"):
        _, body, _ = await served.ask(path)
        text = body.decode().replace("http://www.w3.org/2000/svg", "")
        assert "http:" not in text and "https:" not in text and "//cdn" not in text
        assert not any(word in text for word in ("innerHTML", "eval(", "document.write", "@import"))
