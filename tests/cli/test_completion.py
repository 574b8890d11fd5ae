import os
import shutil
import subprocess
import sys

import pytest
from tests.support.program import tunnel_rs


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_for_every_shell_is_printed(shell: str) -> None:
    ended = tunnel_rs("completion", shell, environ={"PATH": os.environ["PATH"]})
    assert ended.status == 0
    assert f"_TUNNEL_RS_COMPLETE={shell}_complete" in ended.out


def test_another_shell_is_refused() -> None:
    ended = tunnel_rs("completion", "tcsh")
    assert ended.status == 2
    assert "'tcsh' is not one of 'bash', 'zsh', 'fish'" in ended.err


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("words", "expected"),
    [("gen", {"generate-token", "generate-server-key"}), ("server --allowed-t", {"--allowed-tcp"})],
)
def test_words_are_completed(words: str, expected: set[str]) -> None:
    line = f"tunnel-rs {words}"
    ended = subprocess.run(
        [sys.executable, "-c", "from tunnel_rs.cli.main import main; main()"],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "_TUNNEL_RS_COMPLETE": "bash_complete",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(line.split()) - 1),
        },
        capture_output=True,
        text=True,
    )
    assert {row.partition(",")[2] for row in ended.stdout.splitlines()} == expected
    assert ended.returncode == 0
