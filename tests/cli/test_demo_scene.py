"""The steps of the demonstration."""

import pytest

from tunnel_rs.cli import demo_scene
from tunnel_rs.cli.demo_scene import DemoFailedError, Scene
from tunnel_rs.cli.demo_services import Download


async def test_each_step_is_told() -> None:
    said: list[str] = []
    async with Scene(lambda title, _: said.append(title)) as scene:
        await scene.play()
    told = [title for title in said if title]
    assert told == [
        "services",
        "relay",
        "discovery",
        "server",
        "client 1",
        "web page",
        "client 2",
        "web page",
        "download",
        "UDP",
        "refused",
    ]


async def test_a_download_that_differs_fails_the_demonstration(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def corrupted(url: str) -> Download:
        return Download(200, 1, "0" * 64)

    monkeypatch.setattr(demo_scene, "fetch", corrupted)
    async with Scene(lambda *_: None) as scene:
        with pytest.raises(DemoFailedError, match="differs"):
            await scene.play()


async def test_no_secret_is_shown() -> None:
    said: list[str] = []
    async with Scene(lambda _, text: said.append(text)) as scene:
        await scene.play()
        secrets = (scene.token.reveal(), scene.seed.reveal().hex())
    assert not any(secret in text for secret in secrets for text in said)
