"""The pages say what is so: commands run, options exist, links lead somewhere."""

import re
import shutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import click
import pytest

from tests.support import pages, servers
from tests.support.pages import ROOT, Block
from tunnel_rs.config.keyfile import read_secret_key
from tunnel_rs.proto.identity import endpoint_id

PAGES = pages.pages()
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
SECTIONS = {
    f"{page.relative_to(ROOT)}: {title}": section
    for page in PAGES
    for title, section in pages.sections(page).items()
}
TO_RUN = [
    name
    for name, section in SECTIONS.items()
    if any(block.what in ("run", "keep running") for block in section)
]
PROGRAM_MODULES = {"tunnel-rs": "main", "tunnel-rs-ice": "ice", "tunnel-rs-vpn": "vpn"}
CODE = re.compile(r"```\w*\n(.*?)```|((?:^    .*\n)+)|`([^`\n]+)`", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(
    r"(?:^|[;|&(]|\$ |sudo |exec |ProxyCommand[ =']*)[ \t]*"
    r"(tunnel-rs(?:-ice|-vpn)?)((?:[ \t]+[^\n|;&)>`#]+)?)",
    re.MULTILINE,
)
OPTION = re.compile(r"(?<=\s)(--[a-z][a-z0-9-]*|-[a-zA-Z])(?=[\s=]|$)")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_block_says_what_is_done_with_it(page: Path) -> None:
    found = list(pages.blocks(page.read_text()))
    for block in found:
        assert block.what in ("run", "keep running", "file", "shown only"), block.text
        assert block.more or block.what == "run", f"no text after {block.what!r}: {block.text}"
    assert page.read_text().count("```") == 2 * len(found)


@pytest.mark.slow
@pytest.mark.parametrize("name", TO_RUN)
async def test_the_commands_work(name: str, tmp_path: Path) -> None:
    section = SECTIONS[name]
    for program in ("curl", "openssl", "ssh"):
        if shutil.which(program) is None and _mentions(section, program):
            pytest.skip(f"needs {program}, which is not installed here")
    environment = pages.environment(tmp_path)
    folder = tmp_path / "work"
    folder.mkdir()
    if not _mentions(section, "ssh"):
        await pages.follow(section, folder, environment)
        return
    async with servers.sshd(tmp_path) as sshd:
        (tmp_path / "token.txt").symlink_to(folder / "token.txt")
        _log_in_with(sshd, folder, tmp_path / "bin" / "ssh")

        def place(text: str) -> str:
            text = text.replace("127.0.0.1:22 ", f"127.0.0.1:{sshd.port} ")
            text = text.replace("~/", f"{tmp_path}/")  # OpenSSH asks the system, not HOME
            key = folder / "server.key"
            return text.replace("ENDPOINT_ID", _endpoint_id(key)) if key.exists() else text

        await pages.follow(section, folder, environment, place)


def _endpoint_id(key: Path) -> str:
    return str(endpoint_id(read_secret_key(key)))


def _log_in_with(sshd: servers.Sshd, folder: Path, program: Path) -> None:
    """Make `program` an `ssh` whose user has a key, and the settings of the page."""
    options = " ".join(sshd.options[2:])
    program.write_text(
        f"#!/bin/sh\ntouch {folder}/ssh_config\n"
        f'exec {servers.find("ssh")} -F {folder}/ssh_config {options} "$@"\n'
    )
    program.chmod(0o755)


def _mentions(section: list[Block], program: str) -> bool:
    return any(re.search(rf"(^|[\s;|]){program}\s", block.text) for block in section)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_command_and_option_that_is_named_exists(page: Path) -> None:
    for program, words in _commands(page.read_text().replace("\\\n", " ")):
        command, rest = _resolve(program, words)
        known = {flag for param in command.params for flag in (*param.opts, *param.secondary_opts)}
        known |= {"--help", "-h", "--version"}
        if isinstance(command, click.Group) and rest and rest[0][0].isalpha() and rest[0].islower():
            pytest.fail(f"{program} has no command {rest[0]!r}: {program} {' '.join(words)}")
        for option in OPTION.findall(" " + " ".join(rest).partition(" -- ")[0]):
            assert option in known, f"{option} is no option of: {program} {' '.join(words)}"


def _commands(text: str) -> Iterator[tuple[str, list[str]]]:
    for match in CODE.finditer(text):
        for program, words in COMMAND.findall(match[1] or match[2] or match[3]):
            yield program, words.split()


def _resolve(program: str, words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that `words` lead to, and the words after its name."""
    command: click.Command = import_module(f"tunnel_rs.cli.{PROGRAM_MODULES[program]}").cli
    rest = words
    while isinstance(command, click.Group) and rest:
        context = click.Context(command, info_name=program, resilient_parsing=True)
        found = command.get_command(context, rest[0])
        if found is None:
            break
        command, rest = found, rest[1:]
    return command, rest


def test_every_message_that_troubleshooting_goes_by_is_one_of_ours() -> None:
    ours = "\n".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    ours = re.sub(r'"\s*f?"', "", ours)  # literals that go on in the next line
    page = (ROOT / "docs" / "TROUBLESHOOTING.md").read_text()
    bold = " ".join(re.findall(r"\*\*(.+?)\*\*", page, re.DOTALL))
    messages = [message for message in re.findall(r"`([^`]+)`", bold) if " " in message]
    assert len(messages) > 8
    for message in messages:
        for part in filter(None, re.split(r"\s*\.\.\.[;\s]*", " ".join(message.split()))):
            assert part in ours, f"no message of ours has {part!r}"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_link_within_the_project_leads_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in (first or second for first, second in LINK.findall(text)):
        if "://" in target or target.startswith("mailto:"):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in _anchors(linked.read_text()), f"{page.name} links to {target}"


def _anchors(text: str) -> set[str]:
    """The anchors that a forge makes of headings."""
    headings = re.findall(r"^#+ +(.+?) *$", text, re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).replace(" ", "-")
        for heading in headings
    }
