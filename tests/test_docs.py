"""The documentation: every link leads to something, and the index has every page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
# QUEUE.md is written by results/run_queue.py: commands, one a line.
FOLDERS = ("results", "export/runtime", "tests")
PAGES = sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md"), *(ROOT / folder / "README.md" for folder in FOLDERS)])


def links(page: Path) -> list[tuple[str, str]]:
    """The relative links of a page: (path, anchor)."""
    text = re.sub(r"^```.*?^```|`[^`]+`", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    found = re.findall(r"\]\(([^)\s]+)\)", text)
    return [(path, anchor) for path, _, anchor in (link.partition("#") for link in found) if ":" not in path]


def anchors(page: Path) -> set[str]:
    """The headings of a page as a link names them."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_to_something(page: Path) -> None:
    for path, anchor in links(page):
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), path
        assert not anchor or anchor in anchors(target), f"{path}#{anchor}"


def test_the_index_has_every_page() -> None:
    index = {(DOCS / path).resolve() for path, _ in links(DOCS / "README.md")}
    pages = {page for page in DOCS.rglob("*.md") if page.name != "README.md"}
    assert pages <= index


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_no_line_of_prose_is_over_120_characters(page: Path) -> None:
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL).splitlines()
    assert [line for line in prose if len(line) > 120 and not line.lstrip().startswith("|")] == []
