"""Access by a watched file and by asking an HTTP service."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from tests.support.relay_peers import identity

from tunnel_rs.errors import ConfigError
from tunnel_rs.proto.relay_access import AccessService, AllowList, DenyList, Everyone
from tunnel_rs.selfhost import access_control
from tunnel_rs.selfhost.access_control import AccessControl
from tunnel_rs.values import Secret

ALICE, BOB = identity(1).endpoint_id, identity(2).endpoint_id
NOBODY = AllowList(frozenset())


async def test_the_file_adds_to_the_configured_list(tmp_path: Path) -> None:
    file = tmp_path / "allowed"
    file.write_text(f"{ALICE}\n")
    access = AccessControl(AllowList(frozenset({BOB})), file)
    assert await access.may_enter(ALICE, None) and await access.may_enter(BOB, None)
    assert not await access.may_enter(identity(3).endpoint_id, None)


async def test_a_change_of_the_file_is_noticed_and_read(tmp_path: Path) -> None:
    file = tmp_path / "allowed"
    file.write_text("")
    access = AccessControl(NOBODY, file)
    assert not access.has_changed() and not await access.may_enter(ALICE, None)
    file.write_text(f"{ALICE}\n")
    assert access.has_changed()
    access.reload()
    assert not access.has_changed() and access.still_allows(ALICE, None)


@pytest.mark.parametrize("content", [b"not an id\n", b"\xff\xfe", None])
async def test_a_file_that_became_bad_leaves_the_list_in_use(
    tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "allowed"
    file.write_text(f"{ALICE}\n")
    access = AccessControl(NOBODY, file)
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    assert access.has_changed()
    with pytest.raises(ConfigError, match="allowed"):
        access.reload()
    assert access.still_allows(ALICE, None) and not access.has_changed(), "told once only"


def test_a_file_needs_an_allow_list_and_has_to_be_there(tmp_path: Path) -> None:
    for policy in (Everyone(), DenyList(frozenset())):
        with pytest.raises(ConfigError, match=r"needs access\.allowlist"):
            AccessControl(policy, tmp_path / "allowed")
    with pytest.raises(ConfigError, match="No such file"):
        AccessControl(NOBODY, tmp_path / "allowed")


# The HTTP service.


@asynccontextmanager
async def service(
    status: int = 200, body: bytes = b"true", delay: asyncio.Event | None = None
) -> AsyncIterator[tuple[str, list[web.BaseRequest]]]:
    asked: list[web.BaseRequest] = []

    async def serve(request: web.BaseRequest) -> web.StreamResponse:
        asked.append(request)
        if delay is not None:
            await delay.wait()
        return web.Response(status=status, body=body, headers={"Location": "/elsewhere"})

    runner = web.ServerRunner(web.Server(serve, access_log=None))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{site.port}/check", asked
    finally:
        if delay is not None:
            delay.set()
        await runner.cleanup()


async def ask(url: str) -> bool:
    access = AccessControl(AccessService(url, Secret("hush")))
    try:
        return await access.may_enter(ALICE, None)
    finally:
        await access.close()


async def test_the_service_is_asked_by_post_with_the_id_and_the_token() -> None:
    async with service() as (url, asked):
        assert await ask(url)
        (request,) = asked
        assert request.method == "POST" and request.path == "/check"
        assert request.headers["X-Iroh-NodeId"] == str(ALICE)
        assert request.headers["Authorization"] == "Bearer hush"


@pytest.mark.parametrize(
    ("status", "body"), [(200, b"false"), (403, b"true"), (302, b"true"), (200, b"true" * 1000)]
)
async def test_any_other_answer_is_a_no(status: int, body: bytes) -> None:
    async with service(status, body) as (url, asked):
        assert not await ask(url)
        assert len(asked) == 1, "redirects are not followed"


async def test_no_answer_is_a_no(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_control, "_ASK_TIMEOUT", 0.05)
    async with service(delay=asyncio.Event()) as (url, _):
        assert not await ask(url)
    assert not await ask("http://127.0.0.1:9/")


async def test_whom_the_service_let_in_stays_in_after_a_reload() -> None:
    access = AccessControl(AccessService("http://127.0.0.1:9/"))
    access.reload()
    assert access.still_allows(ALICE, None) and not access.has_changed()
