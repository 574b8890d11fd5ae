"""Links in the documents lead somewhere: files, and headings in them. Nothing is fetched."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted(
    {*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "container-deploy").glob("*.md")}
)
each = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)


def prose(document: Path) -> str:
    """Without code, in which brackets mean something else."""
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.M | re.S)
    return re.sub(r"`[^`\n]*`", "x", text)


def links(document: Path) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", prose(document))


def anchors(document: Path) -> set[str]:
    """Of headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.M | re.S)
    titles = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@each
def test_every_link_leads_to_a_file_and_a_heading(document: Path) -> None:
    for link in links(document):
        path, _, anchor = link.partition("#")
        if "://" in path:
            continue
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), link
        assert ROOT in target.parents, f"{link} leads out of the repository"
        if anchor:
            assert anchor in anchors(target), link


@each
def test_links_to_other_places_are_encrypted(document: Path) -> None:
    assert all(link.startswith("https://") for link in links(document) if "://" in link)


def test_every_document_can_be_reached_from_the_first_one() -> None:
    seen, waiting = set(), [ROOT / "README.md"]
    while waiting:
        document = waiting.pop()
        if document in seen or document.suffix != ".md":
            continue
        seen.add(document)
        local = (link.partition("#")[0] for link in links(document) if "://" not in link)
        waiting += [(document.parent / link).resolve() for link in local if link]
    assert seen >= set(DOCUMENTS)
