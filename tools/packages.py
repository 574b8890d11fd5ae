"""Install the wheel of this tree as people do, with every Python that is here, and see it run.

Run through `make packages`; takes minutes, and wants the package index. For each Python: pip with
every extra, pipx, `uv tool install`, and an upgrade and a downgrade by pip. pipx and uv come from
the index, into an environment of their own. Ends with a table, and fails if a line of it does.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.support.wheels import our_wheel  # noqa: E402

PROGRAMS = ("tunnel-rs", "tunnel-rs-ice", "tunnel-rs-vpn")
OLDER, NEWER = "0.0.1", "9.9.9"
VERSIONS = ("3.11", "3.12", "3.13", "3.14")


class FailedError(Exception):
    """A command did not do what it should; the text is what it said."""


def run(*command: str | Path, **more: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command, env=environment | more, capture_output=True, text=True, check=False, cwd="/"
    )
    if done.returncode:
        raise FailedError(f"{' '.join(map(str, command))}: {(done.stderr or done.stdout)[-800:]}")
    return done.stdout


def pythons() -> Iterator[tuple[str, str]]:
    """Version and path of each supported Python that is here and can make environments."""
    for version in VERSIONS:
        places = [shutil.which(f"python{version}")]
        places += map(str, Path("~/.pyenv/versions").expanduser().glob(f"{version}.*/bin/python"))
        for place in filter(None, places):
            asked = (
                "import ensurepip, sys; print('%d.%d.%d' % sys.version_info[:3], sys.executable)"
            )
            try:
                found, path = run(place, "-c", asked).split(maxsplit=1)
            except (FailedError, ValueError):
                continue
            if found.startswith(f"{version}."):
                yield found, path.strip()
                break


def programs_say(folder: Path, version: str) -> None:
    for program in PROGRAMS:
        said = run(folder / program, "--version").strip()
        if said != f"{program} {version}":
            raise FailedError(f"{program} says {said}, not {version}")


def by_pip(python: str, wheels: dict[str, Path], folder: Path, tools: Path) -> None:
    run(python, "-m", "venv", folder)
    run(folder / "bin" / "pip", "install", "--quiet", wheels[NEWER])
    programs_say(folder / "bin", NEWER)
    run(folder / "bin" / "tunnel-rs", "demo")


def with_extras(python: str, wheels: dict[str, Path], folder: Path, tools: Path) -> None:
    run(python, "-m", "venv", folder)
    pip = folder / "bin" / "pip"
    run(pip, "install", "--quiet", f"{wheels[NEWER]}[uvloop,vpn,dev]")
    programs_say(folder / "bin", NEWER)
    run(folder / "bin" / "python", "-c", "import uvloop, pyroute2, pytest, iroh")
    run(pip, "check")


def by_pipx(python: str, wheels: dict[str, Path], folder: Path, tools: Path) -> None:
    homes = {"PIPX_HOME": str(folder / "home"), "PIPX_BIN_DIR": str(folder / "bin")}
    run(tools / "pipx", "install", "--python", python, wheels[NEWER], **homes)
    programs_say(folder / "bin", NEWER)
    run(tools / "pipx", "uninstall", "tunnel-rs", **homes)
    if list((folder / "bin").iterdir()):
        raise FailedError("pipx left programs behind")


def by_uv(python: str, wheels: dict[str, Path], folder: Path, tools: Path) -> None:
    homes = {"UV_TOOL_DIR": str(folder / "home"), "UV_TOOL_BIN_DIR": str(folder / "bin")}
    run(tools / "uv", "tool", "install", "--python", python, wheels[NEWER], **homes)
    programs_say(folder / "bin", NEWER)
    run(tools / "uv", "tool", "uninstall", "tunnel-rs", **homes)
    if list((folder / "bin").iterdir()):
        raise FailedError("uv left programs behind")


def up_and_down(python: str, wheels: dict[str, Path], folder: Path, tools: Path) -> None:
    run(python, "-m", "venv", folder)
    key, pip = folder / "server.key", folder / "bin" / "pip"
    program = folder / "bin" / "tunnel-rs"
    identity = ""
    for version in (OLDER, NEWER, OLDER):
        run(pip, "install", "--quiet", wheels[version])
        programs_say(folder / "bin", version)
        if not key.exists():
            run(program, "generate-server-key", "-o", key)
            identity = run(program, "show-server-id", "-s", key)
        if run(program, "show-server-id", "-s", key) != identity:
            raise FailedError("the identity has changed")
    if len(list(folder.rglob("tunnel_rs-*.dist-info"))) != 1:
        raise FailedError("more than one version is installed")


WAYS = {
    "pip": by_pip,
    "pip, all extras": with_extras,
    "pipx": by_pipx,
    "uv tool": by_uv,
    "up, down": up_and_down,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=VERSIONS, action="append", help="this Python only")
    only = parser.parse_args().only
    with tempfile.TemporaryDirectory(prefix="tunnel-rs-packages-") as name:
        folder = Path(name)
        wheels = {version: our_wheel(folder, version) for version in (OLDER, NEWER)}
        run(sys.executable, "-m", "venv", folder / "tools")
        tools = folder / "tools" / "bin"
        run(tools / "pip", "install", "--quiet", "pipx", "uv")
        failed = 0
        for number, (version, python) in enumerate(pythons()):
            if only and version.rpartition(".")[0] not in only:
                continue
            for way, install in WAYS.items():
                place = folder / f"{number}-{way.replace(', ', '-').replace(' ', '-')}"
                try:
                    install(python, wheels, place, tools)
                    print(f"Python {version:8} {way:18} good", flush=True)
                except FailedError as error:
                    failed += 1
                    print(f"Python {version:8} {way:18} FAILED: {error}", flush=True)
                shutil.rmtree(place, ignore_errors=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
