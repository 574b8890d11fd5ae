"""The services of the demonstration."""

import hashlib

from tunnel_rs.cli.demo_services import LOOPBACK, PAGE, ask_echo, fetch, udp_echo, web_service


async def test_the_page_and_the_data_are_served() -> None:
    data = bytes(range(256)) * 4096
    async with web_service(data) as port:
        page = await fetch(f"http://{LOOPBACK}:{port}/")
        download = await fetch(f"http://{LOOPBACK}:{port}/data")
        missing = await fetch(f"http://{LOOPBACK}:{port}/nothing")
    assert (page.status, page.size) == (200, len(PAGE.encode()))
    assert (download.size, download.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert missing.status == 404


async def test_every_question_comes_back() -> None:
    async with udp_echo() as port:
        assert await ask_echo(port, 20) == 20
