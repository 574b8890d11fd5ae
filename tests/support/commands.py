"""A stand-in for running the system's programs."""

from collections.abc import Mapping, Sequence

from tunnel_rs.errors import LocalError


class FakeRun:
    """Notes the commands; `answers` by how the command begins."""

    def __init__(self, answers: Mapping[str, str] = {}, failing: Sequence[str] = ()) -> None:
        self.calls: list[tuple[Sequence[str], str]] = []
        self._answers = answers
        self._failing = failing

    async def __call__(self, command: Sequence[str], text: str) -> str:
        self.calls.append((command, text))
        line = " ".join(command)
        if any(line.startswith(start) for start in self._failing):
            raise LocalError(f"`{line}` failed")
        return next((said for start, said in self._answers.items() if line.startswith(start)), "")

    def lines(self) -> list[str]:
        """The commands since the last call."""
        lines = [" ".join(command) for command, _ in self.calls]
        self.calls.clear()
        return lines
