"""Pieces of HTML that the sections share; what they are given is HTML already."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["colour_square", "details", "figure", "grid", "legend", "missing", "scrolling", "table"]

_NARROW = 5  # columns that fit a phone


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, text: Sequence[int] = (0,)) -> str:
    """Cells are HTML; the columns in `text` hold words and stand at the left."""

    def cells(tag: str, row: Sequence[str]) -> str:
        return "".join(f"<{tag}{' class=words' if i in text else ''}>{cell}</{tag}>" for i, cell in enumerate(row))

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    html = f"<table><thead><tr>{cells('th', head)}</tr></thead><tbody>{body}</tbody></table>"
    hint = "" if len(head) < _NARROW else '<p class="swipe" aria-hidden="true">more columns: swipe &rarr;</p>'
    return hint + scrolling(html)


def scrolling(html: str, kind: str = "scroll") -> str:
    """A box that scrolls sideways where its content is too wide, with a shadow at the side that hides some."""
    return f'<div class="{kind}" tabindex="0">{html}</div>'


def legend(items: Iterable[str]) -> str:
    """The names of the models beside their colours."""
    return '<p class="legend">' + "".join(f"<span>{item}</span>" for item in items) + "</p>"


def missing(text: str) -> str:
    """What stands where a section has nothing to show."""
    return f'<p class="missing">{text}</p>'


def figure(title: str, content: str, note: str = "") -> str:
    """A chart with its title above and a note below."""
    note = f'<p class="note">{note}</p>' if note else ""
    return f"<figure><figcaption>{title}</figcaption>{content}{note}</figure>"


def grid(figures: Iterable[str], kind: str = "halves") -> str:
    """Figures side by side; the kind says how many."""
    return f'<div class="grid {kind}">{"".join(figures)}</div>'


def details(title: str, figures: Sequence[str], kind: str = "halves") -> str:
    """A grid of figures folded away under a title; nothing without figures."""
    return f"<details><summary>{title}</summary>{grid(figures, kind)}</details>" if figures else ""


def colour_square(colour: str, *, hollow: bool = False) -> str:
    """A small square of a CSS colour."""
    return f'<span class="swatch{" hollow" if hollow else ""}" style="--c:{colour}"></span>'
