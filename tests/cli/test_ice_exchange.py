import io
import json
import os
from pathlib import Path

import pytest

from tunnel_rs.cli.console import Console, Form
from tunnel_rs.cli.ice_exchange import TerminalExchange, qr_text
from tunnel_rs.config.ice_build import Exchange
from tunnel_rs.errors import ProtocolError
from tunnel_rs.proto.manual_text import BlockKind, encode_block, encode_payload, find_block

BODY = b'{"a":1}'
OFFER = encode_block(BlockKind.OFFER, BODY)


class Terminal:
    """A console whose streams are kept."""

    def __init__(self, form: Form = Form.TEXT) -> None:
        self.out, self.err = io.StringIO(), io.StringIO()
        self.console = Console(self.out, self.err, form=form)


def pipe_with(text: str) -> int:
    reader, writer = os.pipe()
    os.write(writer, text.encode())
    os.close(writer)
    return reader


def test_the_block_is_data_and_the_words_around_it_are_not() -> None:
    terminal = Terminal()
    exchange = TerminalExchange(Exchange(None, None, False), terminal.console)
    exchange.show(BlockKind.OFFER, BODY)
    assert terminal.out.getvalue() == OFFER
    assert "to the server" in terminal.err.getvalue()


def test_with_json_the_block_is_an_event() -> None:
    terminal = Terminal(Form.JSON_DATA)
    TerminalExchange(Exchange(None, None, False), terminal.console).show(BlockKind.ANSWER, BODY)
    event = json.loads(terminal.out.getvalue().splitlines()[-1])
    assert event["event"] == "answer"
    assert find_block(BlockKind.ANSWER, event["block"])[0] == BODY


async def test_files_carry_blocks_in_silence(tmp_path: Path) -> None:
    terminal = Terminal()
    settings = Exchange(tmp_path / "offer", tmp_path / "answer", False)
    exchange = TerminalExchange(settings, terminal.console)
    exchange.show(BlockKind.OFFER, BODY)
    assert await exchange.read(BlockKind.OFFER) == BODY
    assert terminal.out.getvalue() == ""


async def test_words_around_a_pasted_block_draw_a_hint() -> None:
    terminal = Terminal()
    reader = pipe_with(f"hello\n{OFFER}")
    exchange = TerminalExchange(Exchange(None, None, False), terminal.console, stdin=reader)
    assert await exchange.read(BlockKind.OFFER) == BODY
    assert "1 line(s) before the offer were left out" in terminal.err.getvalue()
    os.close(reader)


async def test_a_person_may_paste_again_after_a_mistake() -> None:
    terminal = Terminal()
    reader, writer = os.pipe()

    def answer(_: int) -> bool:
        return True

    exchange = TerminalExchange(
        Exchange(None, None, False), terminal.console, stdin=reader, is_terminal=answer
    )
    report = terminal.console.report

    def mend(notice: object) -> None:
        report(notice)  # type: ignore[arg-type]
        if "once more" in str(notice):
            os.write(writer, OFFER.encode())

    terminal.console.report = mend  # type: ignore[method-assign, assignment]
    os.write(writer, OFFER.replace("TRS1", "TRS7").encode())
    assert await exchange.read(BlockKind.OFFER) == BODY
    assert "version 7" in terminal.err.getvalue()
    os.close(reader)
    os.close(writer)


async def test_a_program_may_not() -> None:
    terminal = Terminal()
    reader = pipe_with(OFFER.replace("TRS1", "TRS7"))
    exchange = TerminalExchange(Exchange(None, None, False), terminal.console, stdin=reader)
    with pytest.raises(ProtocolError, match="version 7"):
        await exchange.read(BlockKind.OFFER)
    os.close(reader)


def test_a_qr_code_is_shown_when_it_fits() -> None:
    payload = encode_payload(b"x" * 600)
    assert max(map(len, qr_text(payload, 200).splitlines())) > 50
    with pytest.raises(ValueError, match="needs a terminal of 101 columns, this one has 40"):
        qr_text(payload, 40)
    with pytest.raises(ValueError, match="too large"):
        qr_text("x" * 5000, 1000)


def test_a_qr_code_that_does_not_fit_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    terminal = Terminal()
    exchange = TerminalExchange(Exchange(None, None, True), terminal.console)
    exchange.show(BlockKind.OFFER, BODY * 100)
    assert "no QR code: it needs a terminal of" in terminal.err.getvalue()
