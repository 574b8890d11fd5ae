"""`install.sh`, with packages from a directory: no network."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.support.wheels import environment, pins, small_wheel

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "install.sh"
PROGRAMS = ("tunnel-rs", "tunnel-rs-ice", "tunnel-rs-vpn")

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a script for POSIX shells")


@dataclass(frozen=True)
class House:
    """A directory of wheels: two versions of a package that is called like ours, the newer one a
    preview, and one that both need. What is tested is the script; `test_wheel.py` has the real one.
    """

    folder: Path
    constraints: Path
    release: Path


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    folder = tmp_path_factory.mktemp("wheels")
    needed = small_wheel(folder, "needed-thing", "2.0")
    release, _ = (
        small_wheel(folder, "tunnel-rs", version, "needed-thing>=1", " ".join(PROGRAMS))
        for version in ("1.2.0", "1.3.0rc1")
    )
    constraints = folder / "constraints.txt"
    constraints.write_text(pins([needed]))
    return House(folder, constraints, release)


def install(
    home: Path, *arguments: str | Path, script: Path = SCRIPT, **more: str
) -> "subprocess.CompletedProcess[str]":
    home.mkdir(exist_ok=True)
    return subprocess.run(
        ["sh", script, *arguments],
        env=environment(home, **more),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def version(home: Path, program: str = "tunnel-rs") -> str:
    command = [home / ".local" / "bin" / program, "--version"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_it_installs_upgrades_and_removes(house: House, tmp_path: Path) -> None:
    home = tmp_path / "home"
    source = ("--python", sys.executable, "--from", house.folder)
    done = install(home, *source, "--constraints", house.constraints, "v1.2.0")
    assert done.returncode == 0, done.stderr
    assert [version(home, program) for program in PROGRAMS] == [f"{p} 1.2.0" for p in PROGRAMS]
    assert f'export PATH="{home}/.local/bin:$PATH"' in done.stdout

    path = f"/usr/bin:/bin:{home}/.local/bin"
    done = install(home, *source, "--prerelease", "--no-constraints", PATH=path)
    assert version(home) == "tunnel-rs 1.3.0rc1", done.stderr
    assert "is not in your PATH" not in done.stdout

    environments = [path.name for path in (home / ".local/share/tunnel-rs").glob("env-*")]
    assert len(environments) == 1

    keys = home / ".config" / "tunnel-rs"
    keys.mkdir(parents=True)
    done = install(home, "--uninstall")
    assert done.returncode == 0 and keys.is_dir()
    assert not list((home / ".local" / "bin").iterdir())
    assert not (home / ".local" / "share" / "tunnel-rs").exists()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_package_with_another_hash_than_beside_the_script_is_refused(
    house: House, tmp_path: Path
) -> None:
    script = tmp_path / "install.sh"
    shutil.copy(SCRIPT, script)
    text = house.constraints.read_text()
    right = text.partition("sha256:")[2][:64]
    (tmp_path / "constraints.txt").write_text(text.replace(right, "0" * 64))
    source = ("--python", sys.executable, "--from", house.folder)
    done = install(tmp_path / "home", *source, script=script)
    assert done.returncode == 1
    assert "DO NOT MATCH THE HASHES" in done.stderr
    assert done.stderr.endswith("could not be installed: see above. Nothing was changed\n")
    assert not any((tmp_path / "home" / ".local" / "bin").iterdir())
    assert not any((tmp_path / "home" / ".local" / "share" / "tunnel-rs").iterdir())


def test_a_wheel_with_another_hash_is_refused(house: House, tmp_path: Path) -> None:
    done = install(
        tmp_path, "--python", sys.executable, "--wheel", house.release, "--sha256", "0" * 64
    )
    assert done.returncode == 1
    assert "is not what it should be: its SHA-256 is" in done.stderr
    assert not (tmp_path / ".local").exists()


def test_a_program_of_somebody_else_is_not_replaced(house: House, tmp_path: Path) -> None:
    other = tmp_path / ".local" / "bin" / "tunnel-rs"
    other.parent.mkdir(parents=True)
    other.write_text("#!/bin/sh\n")
    done = install(tmp_path, "--python", sys.executable, "--from", house.folder)
    assert done.returncode == 1 and f"{other} is there and is not ours" in done.stderr
    assert install(tmp_path, "--uninstall").returncode == 1
    assert other.read_text() == "#!/bin/sh\n"


def fake_python(folder: Path, body: str) -> Path:
    folder.mkdir()
    program = folder / "python3"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    for tool in ("sh", "dirname", "readlink"):
        found = shutil.which(tool)
        assert found is not None
        os.symlink(found, folder / tool)
    return program


def test_without_a_new_enough_python_it_says_how_to_get_one(tmp_path: Path) -> None:
    says = 'case $2 in *print*) echo "; python3 is 3.9" ;; *) exit 1 ;; esac'
    old = fake_python(tmp_path / "bin", says)
    done = install(tmp_path, PATH=str(old.parent))
    assert done.returncode == 1
    assert "no Python 3.11 or newer was found; python3 is 3.9. Install" in done.stderr
    assert "apt install" in done.stderr
    done = install(tmp_path, "--python", old)
    assert done.stderr == f"install.sh: {old} is no Python 3.11 or newer\n"


def test_a_python_without_its_venv_module_is_named(tmp_path: Path) -> None:
    bare = fake_python(tmp_path / "bin", "case $2 in *ensurepip*) exit 1 ;; esac")
    done = install(tmp_path, PATH=str(bare.parent))
    assert done.returncode == 1
    assert "python3 cannot make environments: its venv module is missing" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--colour",), "no such option: --colour; see --help"),
        (("--from",), "--from needs a value; see --help"),
        (("1.0", "2.0"), "more than one version: 1.0 and 2.0"),
        (("1.0;rm -rf /",), "this is no version: 1.0;rm -rf /"),
        (("--extras", "vpn x"), "--extras: names with commas between them"),
        (("--sha256", "00"), "--sha256 goes with --wheel"),
        (("--uninstall",), "nothing of ours is in"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    done = install(tmp_path, *arguments)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith(f"install.sh: {said}") and done.stderr.count("\n") == 1
    assert not (tmp_path / ".local").exists()


def test_a_directory_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    source = ("--python", sys.executable, "--prefix", tmp_path / "file")
    done = install(tmp_path, *source)
    assert done.returncode == 1 and "cannot write to" in done.stderr.splitlines()[-1]


def test_shellcheck_has_nothing_to_say() -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("needs shellcheck, which is not installed here")
    done = subprocess.run(["shellcheck", SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
