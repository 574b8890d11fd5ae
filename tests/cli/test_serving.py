import asyncio
import signal

from tests.support.relay_network import until

from tunnel_rs.cli.serving import serve
from tunnel_rs.errors import ConfigError, ExitStatus, LocalError
from tunnel_rs.reports import Notice, Report

READY = Notice("info", "ready")


class Server:
    def __init__(self, failure: Exception | None = None) -> None:
        self.calls: list[str] = []
        self._failure = failure

    async def start(self) -> None:
        self.calls.append("start")
        if self._failure is not None:
            raise self._failure

    async def close(self) -> None:
        self.calls.append("close")


async def nothing() -> tuple[str, ...]:
    return ()


async def test_it_starts_says_so_and_closes_on_a_signal() -> None:
    server, said = Server(), list[Report]()
    task = asyncio.create_task(serve(server, said.append, lambda: READY, nothing))
    await until(lambda: said)
    signal.raise_signal(signal.SIGTERM)
    assert await task == ExitStatus.TERMINATED
    assert said[0] == READY and server.calls == ["start", "close"]


async def test_a_failing_start_is_raised_after_closing() -> None:
    server, said = Server(LocalError("port in use")), list[Report]()
    try:
        await serve(server, said.append, lambda: READY, nothing)
    except LocalError as error:
        assert str(error) == "port in use"
    assert server.calls == ["start", "close"] and said == []


async def test_sighup_reads_the_settings_again() -> None:
    answers = iter([("port",), ConfigError("file: wrong")])

    async def reload() -> tuple[str, ...]:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    said: list[Report] = []
    task = asyncio.create_task(serve(Server(), said.append, lambda: READY, reload))
    await until(lambda: said)
    signal.raise_signal(signal.SIGHUP)
    await until(lambda: len(said) == 3)
    signal.raise_signal(signal.SIGHUP)
    await until(lambda: len(said) == 4)
    signal.raise_signal(signal.SIGINT)
    assert await task == ExitStatus.INTERRUPTED
    assert said[1:4] == [
        Notice("info", "settings read again"),
        Notice("warning", "changed, but used after a restart: port"),
        Notice("warning", "file: wrong; the settings in use stay as they are"),
    ]
