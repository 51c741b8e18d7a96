"""Whoever looks for a page finds it: docs/README.md names every one, and no link leads nowhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md")])
_CODE = re.compile(r"`[^`\n]+`(?!\])")
_LINK = re.compile(r"\]\(([^)#:\s]+)(?:#([^)\s]+))?\)")


def links(page: Path) -> list[tuple[Path, str]]:
    """Return the files, with their anchors, that a page links to."""
    return [((page.parent / file).resolve(), anchor) for file, anchor in _LINK.findall(_CODE.sub("", page.read_text()))]


@pytest.mark.parametrize("index", [DOCS / "README.md", DOCS / "decisions" / "README.md"], ids=["docs", "decisions"])
def test_a_list_of_pages_names_every_page(index: Path) -> None:
    decisions = DOCS / "decisions"
    own = [page for page in index.parent.rglob("*.md") if index.parent == decisions or page.parent != decisions]
    assert {*own} - {index} - {file for file, _ in links(index)} == set()


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_every_link_leads_somewhere(page: Path) -> None:
    for file, anchor in links(page):
        assert file.exists(), f"{page}: {file}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
