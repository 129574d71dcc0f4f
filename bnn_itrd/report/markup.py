"""Functions that make the HTML elements of the sections; their arguments are HTML, not plain text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["colour_square", "details", "figure", "grid", "legend", "missing", "scrolling", "table"]

_NARROW = 5  # columns that fit a phone


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, text: Sequence[int] = (0,)) -> str:
    """Returns a table; text: the columns of words, which are aligned to the left."""

    def cells(tag: str, row: Sequence[str]) -> str:
        return "".join(f"<{tag}{' class=words' if i in text else ''}>{cell}</{tag}>" for i, cell in enumerate(row))

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    html = f"<table><thead><tr>{cells('th', head)}</tr></thead><tbody>{body}</tbody></table>"
    hint = "" if len(head) < _NARROW else '<p class="swipe" aria-hidden="true">more columns: swipe &rarr;</p>'
    return hint + scrolling(html)


def scrolling(html: str, kind: str = "scroll") -> str:
    """Returns a box that scrolls sideways if its content is too wide, with a shadow at the side that hides some."""
    return f'<div class="{kind}" tabindex="0">{html}</div>'


def legend(items: Iterable[str]) -> str:
    """Returns a legend: the names of the models with their colours."""
    return '<p class="legend">' + "".join(f"<span>{item}</span>" for item in items) + "</p>"


def missing(text: str) -> str:
    """Returns the text of a section that has nothing to show."""
    return f'<p class="missing">{text}</p>'


def figure(title: str, content: str, note: str = "") -> str:
    """Returns a chart with its title above and a note below."""
    note = f'<p class="note">{note}</p>' if note else ""
    return f"<figure><figcaption>{title}</figcaption>{content}{note}</figure>"


def grid(figures: Iterable[str], kind: str = "halves") -> str:
    """Returns figures side by side; kind: "halves" or "thirds"."""
    return f'<div class="grid {kind}">{"".join(figures)}</div>'


def details(title: str, figures: Sequence[str], kind: str = "halves") -> str:
    """Returns a grid of figures that opens by a click on the title; "" without figures."""
    return f"<details><summary>{title}</summary>{grid(figures, kind)}</details>" if figures else ""


def colour_square(colour: str, *, hollow: bool = False) -> str:
    """Returns a small square of a CSS colour."""
    return f'<span class="swatch{" hollow" if hollow else ""}" style="--c:{colour}"></span>'
