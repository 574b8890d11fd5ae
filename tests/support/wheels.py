"""Wheels without a network: ours, built from this tree, and those it needs, put together again from
what is installed.
"""

import base64
import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "src")


def our_wheel(into: Path, version: str) -> Path:
    """Build the wheel of this tree as if it had this version."""
    tree = into / f"tree-{version}"
    tree.mkdir(parents=True)
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, tree / name)
    init = tree / "src" / "tunnel_rs" / "__init__.py"
    init.write_text(
        re.sub(r'__version__ = "[^"]*"', f'__version__ = "{version}"', init.read_text())
    )
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(into)]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return next(into.glob(f"tunnel_rs-{version}-*.whl"))


def needed() -> list[metadata.Distribution]:
    """Everything that running needs, in no order."""
    found: dict[str, metadata.Distribution] = {}
    waiting = [(line, "") for line in metadata.requires("tunnel-rs") or ()]
    while waiting:
        line, extra = waiting.pop()
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonical(requirement.name)
        if name not in found:
            found[name] = metadata.distribution(name)
        for wanted in ("", *requirement.extras):
            waiting += [(line, wanted) for line in found[name].requires or ()]
        waiting = [item for item in waiting if canonical(Requirement(item[0]).name) not in found]
    return list(found.values())


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def repack(distribution: metadata.Distribution, into: Path) -> Path:
    """The wheel that a distribution was installed from, but for its compression."""
    tags = re.findall(r"^Tag: (\S+)-(\S+)-(\S+)$", distribution.read_text("WHEEL") or "", re.M)
    tag = "-".join(".".join(dict.fromkeys(part)) for part in zip(*tags, strict=True))
    name = re.sub(r"[-.]+", "_", distribution.metadata["Name"])
    left_out = ("/RECORD", "/INSTALLER", "/REQUESTED", "/direct_url.json")
    files = {
        str(file): Path(str(file.locate())).read_bytes()
        for file in distribution.files or ()
        if not str(file).startswith("..")
        and "__pycache__" not in str(file)
        and not (".dist-info/" in str(file) and str(file).endswith(left_out))
    }
    return pack(into / f"{name}-{distribution.version}-{tag}.whl", files)


def small_wheel(into: Path, name: str, version: str, needs: str = "", scripts: str = "") -> Path:
    """A package with one module, which prints its version; `scripts` are names of programs."""
    module = name.replace("-", "_") + "_small"
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    entries = "".join(f"{script} = {module}:main\n" for script in scripts.split())
    requires = f"Requires-Dist: {needs}\n" if needs else ""
    files = {
        f"{module}.py": f"import sys\ndef main():\n    print(sys.argv[0].rpartition('/')[2], "
        f"'{version}')\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requires}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{entries}",
    }
    content = {path: text.encode() for path, text in files.items()}
    return pack(into / f"{name.replace('-', '_')}-{version}-py3-none-any.whl", content)


def pack(wheel: Path, files: dict[str, bytes]) -> Path:
    """Write a wheel of these files, with the record of them that it has to have."""
    info = next(path.partition("/")[0] for path in files if ".dist-info/" in path)
    record = []
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_STORED) as archive:
        for path, data in files.items():
            archive.writestr(path, data)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=")
            record.append(f"{path},sha256={digest.decode()},{len(data)}")
        archive.writestr(f"{info}/RECORD", "\n".join([*record, f"{info}/RECORD,,", ""]))
    return wheel


def pins(wheels: list[Path]) -> str:
    """A constraints file with hashes for these wheels."""
    lines = []
    for wheel in wheels:
        name, version = wheel.name.split("-")[:2]
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        lines.append(f"{name}=={version} --hash=sha256:{digest}\n")
    return "".join(lines)


def environment(home: Path, **more: str) -> dict[str, str]:
    """Of a user who has just this machine's programs: nothing of our own environment is seen."""
    path = os.pathsep.join(("/usr/bin", "/bin"))
    return {"HOME": str(home), "PATH": path, "PIP_NO_COMPILE": "1", "LC_ALL": "C.UTF-8", **more}
