"""Functions that make the HTML elements of the report's sections; the texts they take are HTML and are not escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["colour_square", "details", "figure", "grid", "legend", "missing", "scrolling", "table"]

_NARROW = 5  # a table with fewer columns than this fits a phone's screen


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, text: Sequence[int] = (0,)) -> str:
    """Returns an HTML table with a head and rows; text: numbers of the columns of words, which are aligned left."""

    def cells(tag: str, row: Sequence[str]) -> str:
        return "".join(f"<{tag}{' class=words' if i in text else ''}>{cell}</{tag}>" for i, cell in enumerate(row))

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    html = f"<table><thead><tr>{cells('th', head)}</tr></thead><tbody>{body}</tbody></table>"
    hint = "" if len(head) < _NARROW else '<p class="swipe" aria-hidden="true">more columns: swipe &rarr;</p>'
    return hint + scrolling(html)


def scrolling(html: str, kind: str = "scroll") -> str:
    """Returns an HTML box that scrolls sideways if its content is too wide; a shadow shows where more is hidden."""
    return f'<div class="{kind}" tabindex="0">{html}</div>'


def legend(items: Iterable[str]) -> str:
    """Returns a legend as HTML, in which each item is a name with its colour."""
    return '<p class="legend">' + "".join(f"<span>{item}</span>" for item in items) + "</p>"


def missing(text: str) -> str:
    """Returns the HTML of a section that has nothing to show; `text` says why."""
    return f'<p class="missing">{text}</p>'


def figure(title: str, content: str, note: str = "") -> str:
    """Returns a chart as an HTML figure, with its title above and a note below."""
    note = f'<p class="note">{note}</p>' if note else ""
    return f"<figure><figcaption>{title}</figcaption>{content}{note}</figure>"


def grid(figures: Iterable[str], kind: str = "halves") -> str:
    """Returns the HTML of figures side by side, two ("halves") or three ("thirds") in a row."""
    return f'<div class="grid {kind}">{"".join(figures)}</div>'


def details(title: str, figures: Sequence[str], kind: str = "halves") -> str:
    """Returns the HTML of a grid of figures that a click on the title opens, or "" if there are no figures."""
    return f"<details><summary>{title}</summary>{grid(figures, kind)}</details>" if figures else ""


def colour_square(colour: str, *, hollow: bool = False) -> str:
    """Returns the HTML of a small square in a CSS colour, filled, or with `hollow` only its border."""
    return f'<span class="swatch{" hollow" if hollow else ""}" style="--c:{colour}"></span>'
