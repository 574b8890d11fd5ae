"""The shape of the project, checked: see `docs/CONTRIBUTING.md`."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "tunnel_rs"
MODULES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))
STOP_SIGN = 800
"""Lines; above that a module does too much (design.md)."""

DECLARATIONS = {
    Path(name)
    for name in (
        "__main__.py",
        "forward/settings.py",
        "ice/settings.py",
        "iroh/settings.py",
        "net/link.py",
        "proto/credentials.py",
        "proto/signalling.py",
        "proto/transport_settings.py",
        "reports.py",
        "vpn/settings.py",
        "vpn/traffic.py",
    )
}
"""Modules that decide nothing, so that a test of their own could only repeat them."""


def test_every_module_has_a_test_file_of_its_own() -> None:
    missing = [
        str(wanted)
        for module in MODULES
        if module.name != "__init__.py" and module not in DECLARATIONS
        if not (wanted := ROOT / "tests" / module.parent / f"test_{module.name}").exists()
    ]
    assert not missing


@pytest.mark.parametrize("module", sorted(DECLARATIONS & set(MODULES)), ids=str)
def test_a_module_without_a_test_decides_nothing(module: Path) -> None:
    decisions = (ast.For, ast.While, ast.Try, ast.BoolOp, ast.IfExp, ast.comprehension)
    tree = ast.parse((PACKAGE / module).read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    found = [
        node for f in functions for node in ast.walk(f) if isinstance(node, (ast.If, *decisions))
    ]
    assert not found


def test_no_package_holds_code_in_its_init_file() -> None:
    """Code there would escape the rule above; a docstring, a version and re-exports do not."""
    holding = [
        str(module)
        for module in MODULES
        if module.name == "__init__.py"
        and module.parent.name  # the package's front door has tests/test_api.py
        and re.search(r"^\s*(async\s+)?(def|class)\s", (PACKAGE / module).read_text(), re.M)
    ]
    assert not holding


@pytest.mark.parametrize("folder", ["src", "tests", "bench", "tools"])
def test_no_file_is_longer_than_the_stop_sign(folder: str) -> None:
    lengths = {path: path.read_text().count("\n") for path in (ROOT / folder).rglob("*.py")}
    assert lengths
    assert not {str(path): lines for path, lines in lengths.items() if lines > STOP_SIGN}


@pytest.mark.parametrize("name", ["server.toml", "client.toml"])
def test_the_example_configuration_is_shipped(name: str) -> None:
    assert (ROOT / f"{name}.example").is_file()


def test_every_make_target_the_documents_name_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    documents = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    named = {
        (document.name, target)
        for document in documents
        for target in re.findall(r"\bmake ([a-z][a-z-]*)\b", code(document.read_text()))
    }
    assert {"demo", "test"} <= {target for _, target in named}
    assert not {(name, target) for name, target in named if target not in targets}


def test_every_file_the_documents_link_to_exists() -> None:
    documents = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")]
    dead = [
        f"{document.name}: {link}"
        for document in documents
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text())
        if not (document.parent / link).exists()
    ]
    assert not dead


def test_no_registry_and_no_path_of_a_developers_machine_is_named() -> None:
    hosts = re.compile(r"(pypi|pythonhosted|crates|npmjs)\.(org|io|com)|/(home|root|work)/")
    named = [
        path.name
        for path in (ROOT / "Makefile", *ROOT.glob("constraints*.txt"), *ROOT.glob("*.md"))
        if hosts.search(path.read_text())
    ]
    assert not named


def code(markdown: str) -> str:
    """The parts of a document set as code: `make x` in prose is English, not a command."""
    blocks = re.findall(r"^```.*?^```", markdown, re.M | re.S)
    return "\n".join([*blocks, *re.findall(r"`[^`\n]+`", markdown)])
