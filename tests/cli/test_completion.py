import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.program import tunnel_rs
from tests.support.servers import find


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


ASK = {
    "bash": """
{script}
COMP_WORDS=({words}) COMP_CWORD={last}
_tunnel_rs_completion tunnel-rs
printf '%s\\n' "${{COMPREPLY[@]}}"
""",
    "fish": """
{script}
complete -C "{words}"
""",
    # What the line editor would do is left out: it wants a terminal.
    "zsh": """
compdef() {{ }}
_describe() {{ print -rl -- "${{completions_with_descriptions[@]}}" }}
compadd() {{ print -rl -- "${{completions[@]}}" }}
{script}
words=({words}) CURRENT={last}+1
_tunnel_rs_completion
""",
}
"""What has each shell print the completions of the last word, one a line; a description follows."""


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("tunnel-rs gen", {"generate-token", "generate-server-key"}),
        ("tunnel-rs client --auth-to", {"--auth-token", "--auth-token-file"}),
        ("tunnel-rs client --color al", {"always"}),
    ],
)
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_itself_completes_commands_options_and_values(
    shell: str, words: str, expected: set[str], tmp_path: Path
) -> None:
    program = tmp_path / "tunnel-rs"
    program.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path[:] = {sys.path!r}\n"
        "sys.argv[0] = 'tunnel-rs'\nfrom tunnel_rs.cli.main import main\nmain()\n"
    )
    program.chmod(0o755)
    script = tunnel_rs("completion", shell, environ={"PATH": os.environ["PATH"]}).out
    ended = subprocess.run(
        [find(shell), "-c", ASK[shell].format(script=script, words=words, last=words.count(" "))],
        env={"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "HOME": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert {row.partition("\t")[0].partition(":")[0] for row in ended.stdout.split("\n")} - {
        ""
    } == expected, ended.stderr
