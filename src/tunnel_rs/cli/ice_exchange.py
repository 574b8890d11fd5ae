"""Manual mode at the terminal: shows our block, reads the other side's."""

import asyncio
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from tunnel_rs.cli.console import Console
from tunnel_rs.config.ice_build import Exchange
from tunnel_rs.errors import ProtocolError
from tunnel_rs.net.paste import drop_typed, read_block, write_block
from tunnel_rs.proto.manual_text import BlockKind, encode_block, encode_payload
from tunnel_rs.reports import Notice

STDIN = 0
_PASTE_TIME = 0.5

_OTHER_SIDE = {BlockKind.OFFER: "server", BlockKind.ANSWER: "client"}


class TerminalExchange:
    """Files where they were named, else stdout and stdin. See `ice.manual.Exchange`."""

    def __init__(
        self,
        settings: Exchange,
        console: Console,
        *,
        stdin: int = STDIN,
        is_terminal: Callable[[int], bool] = os.isatty,
    ) -> None:
        self._settings = settings
        self._console = console
        self._stdin = stdin
        self._is_terminal = is_terminal

    def show(self, kind: BlockKind, body: bytes) -> None:
        """Give away our block, in a file or on stdout. Raises LocalError."""
        path = self._path(kind)
        other = _OTHER_SIDE[kind]
        if path is not None:
            write_block(path, encode_block(kind, body))
            self._say(f"wrote the {kind.lower()} to {path}; the {other} needs it")
        elif self._console.writes_data:
            event = {"event": kind.lower(), "block": encode_block(kind, body)}
            self._console.data(json.dumps(event, separators=(",", ":")))
        else:
            self._say(f"copy this {kind.lower()}, all of it, to the {other}:")
            self._console.data(encode_block(kind, body).removesuffix("\n"))
        if self._settings.qr:
            self._show_qr(encode_payload(body))

    async def read(self, kind: BlockKind) -> bytes:
        """Wait for the other side's block. A person may try again after a mistake. Raises
        ProtocolError, LocalError."""
        path = self._path(kind)
        at_terminal = path is None and self._is_terminal(self._stdin)
        if at_terminal:
            self._say(f"paste the {kind.lower()} of the {_OTHER_SIDE_OF[kind]} here:")
        elif path is not None:
            self._say(f"waiting for the {kind.lower()} in {path}")
        while True:
            try:
                body, trimmed = await read_block(kind, self._stdin if path is None else path)
            except ProtocolError as error:
                if not at_terminal:
                    raise
                self._console.report(Notice("warning", f"{error}; paste it once more:"))
                continue
            if at_terminal:
                drop_typed(self._stdin)
                # A paste may still be coming.
                asyncio.get_running_loop().call_later(_PASTE_TIME, drop_typed, self._stdin)
            if trimmed:
                self._say(f"hint: {trimmed} line(s) before the {kind.lower()} were left out")
            return body

    def _path(self, kind: BlockKind) -> Path | None:
        settings = self._settings
        return settings.offer_file if kind is BlockKind.OFFER else settings.answer_file

    def _say(self, text: str) -> None:
        self._console.report(Notice("info", text))

    def _show_qr(self, payload: str) -> None:
        columns = shutil.get_terminal_size().columns
        try:
            self._console.remark(qr_text(payload, columns))
        except ValueError as error:
            self._say(f"no QR code: {error}")


_OTHER_SIDE_OF = {BlockKind.OFFER: "client", BlockKind.ANSWER: "server"}


def qr_text(payload: str, columns: int) -> str:
    """A QR code in half-block characters. Raises ValueError, which says why, when it would be wider
    than `columns`, or than any QR code."""
    import segno  # only --qr needs it

    try:
        code = segno.make(payload, error="l", micro=False, boost_error=False)
    except segno.DataOverflowError:
        raise ValueError("the block is too large for one; use a file or the text") from None
    needed = code.symbol_size(border=2)[0]
    if needed > columns:
        raise ValueError(f"it needs a terminal of {needed} columns, this one has {columns}")
    out = io.StringIO()
    code.terminal(out, border=2, compact=True)
    return out.getvalue()
