"""What a VPN changes on systems where programs do it: each change with the one that undoes it."""

from collections.abc import Sequence
from contextlib import suppress

from tunnel_rs.errors import LocalError
from tunnel_rs.net import commands

Command = Sequence[str]


class Changes:
    """Changes made by commands, taken back in reverse order."""

    def __init__(self, run: commands.Run) -> None:
        self._run = run
        self._undo: list[tuple[Command, str]] = []

    async def make(
        self, command: Command, undo: Command | None = None, *, text: str = "", undo_text: str = ""
    ) -> str:
        """Run `command`; once it has worked, `undo` is noted. Raises LocalError."""
        said = await self._run(command, text)
        if undo is not None:
            self._undo.append((undo, undo_text))
        return said

    async def take_back(self) -> None:
        """What cannot be undone has gone by itself. Raises nothing."""
        while self._undo:
            command, text = self._undo.pop()
            with suppress(LocalError):
                await self._run(command, text)
