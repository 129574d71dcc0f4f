"""`write_report`, which writes the report of a run as one HTML page: a head with a summary, and sections."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

from bnn_itrd.plots import write_atomically
from bnn_itrd.report.classes import classes_section, confusion_section
from bnn_itrd.report.comparison import comparison_section
from bnn_itrd.report.differences import differences_section
from bnn_itrd.report.files import validation_section
from bnn_itrd.report.provenance import setup_section
from bnn_itrd.report.style import STYLE, theme
from bnn_itrd.report.summary import headline, page_head
from bnn_itrd.report.tradeoffs import tradeoffs_section
from bnn_itrd.report.training.curves import curves_section
from bnn_itrd.report.view import View

__all__ = ["write_report"]


def write_report(comparison: dict[str, Any], path: Path) -> Path:
    """Writes the report of a run as one HTML page to `path`, and returns the path.

    `comparison` is the content of comparison.json. Every key but "models" may be missing, and every number may be None.
    The page needs no network and no other file. Exported files in the page's folder, or in a network's folder inside
    it, become links. The file is written completely or not at all.
    Raises ValueError unless the comparison has a list of models and, if it names a format, format 1.
    """
    path = Path(path)
    view = View.of(comparison, path.parent)
    sections = (
        ("comparison", "Comparison", comparison_section),
        ("curves", "Training", curves_section),
        ("tradeoffs", "Size and latency", tradeoffs_section),
        ("classes", "Classes", classes_section),
        ("confusion", "Confusion", confusion_section),
        ("differences", "Differences", differences_section),
        ("validation", "Validation", validation_section),
        ("setup", "Setup", setup_section),
    )
    links = "".join(f'<a href="#{name}">{title}</a>' for name, title, _ in sections)
    body = "".join(
        f'<section id="{name}" class="card"><h2>{title}</h2>{write(view)}</section>' for name, title, write in sections
    )
    title = headline(comparison)
    page = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title><style>{theme()}{STYLE}</style></head>\n"
        f'<body><header id="summary">{page_head(view, title)}<nav>{links}</nav></header>\n<main>{body}</main>'
        "<footer>Written by bnn_itrd. Top-1 is the share of images whose most probable class is right, after the last "
        "epoch unless it says best.</footer>"
        "</body></html>\n"
    )
    with write_atomically(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="xmlcharrefreplace")
    return path
