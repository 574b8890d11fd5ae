"""The wheel of this tree, in a clean environment, with all that it needs; no network."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from tests.support.wheels import environment, needed, our_wheel, repack

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ("tunnel-rs", "tunnel-rs-ice", "tunnel-rs-vpn")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(sys.platform == "win32", reason="its programs are elsewhere there"),
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return our_wheel(tmp_path_factory.mktemp("wheel"), "0.7.0")


def run(*command: str | Path, home: Path) -> str:
    done = subprocess.run(
        command, env=environment(home), capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_is_one_for_all_platforms_and_holds_the_package_alone(wheel: Path) -> None:
    assert wheel.name == "tunnel_rs-0.7.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    sources = ROOT / "src" / "tunnel_rs"
    package = {
        str(path.relative_to(ROOT / "src"))
        for path in sources.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert package <= names
    info = "tunnel_rs-0.7.0.dist-info/"
    assert not {name for name in names - package if not name.startswith(info)}
    assert f"{info}licenses/LICENSE" in names


def test_it_runs_in_a_clean_environment_and_goes_without_a_trace(
    wheel: Path, tmp_path: Path
) -> None:
    for distribution in needed():
        repack(distribution, wheel.parent)
    clean = tmp_path / "env"
    run(sys.executable, "-m", "venv", "--without-pip", clean, home=tmp_path)
    pip = [sys.executable, "-m", "pip", "--python", clean / "bin" / "python", "--no-input"]
    source = ("--no-index", "--find-links", wheel.parent)
    run(*pip, "install", "--no-compile", *source, "tunnel-rs", home=tmp_path)
    for program in PROGRAMS:
        assert run(clean / "bin" / program, "--version", home=tmp_path) == f"{program} 0.7.0\n"
        assert "Commands:" in run(clean / "bin" / program, "--help", home=tmp_path)

    run(*pip, "uninstall", "--yes", "tunnel-rs", home=tmp_path)
    left = [path for path in clean.rglob("tunnel*") if "__pycache__" not in path.parts]
    assert all(path.is_dir() for path in left), left
