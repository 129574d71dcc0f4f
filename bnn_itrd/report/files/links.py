"""Names and paths of exported files, and links from the report to them."""

from __future__ import annotations

from html import escape
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from bnn_itrd.plots import model_name
from bnn_itrd.report.view import View

__all__ = ["file_link", "file_name", "file_place"]


def file_name(artefact: dict[str, Any]) -> str:
    """Returns the name of an exported file, without its folder; `artefact` is its entry in comparison.json."""
    return PurePosixPath(str(artefact.get("file") or artefact.get("target") or "unnamed")).name or "unnamed"


def file_place(view: View, model: dict[str, Any], artefact: dict[str, Any]) -> str:
    """Returns the path of an exported file, relative to the report's folder.

    The file is looked for in the network's folder, then in the report's. If it is in neither, the result is the path
    that a run would give it, in the network's folder.
    """
    name, usual = file_name(artefact), PurePosixPath(model_name(model)).name
    places = (f"{usual}/{name}", name)
    return next((place for place in places if (view.folder / place).is_file()), places[0])


def file_link(view: View, model: dict[str, Any], artefact: dict[str, Any]) -> str:
    """Returns the name of an exported file as HTML, with a link to it if the file exists."""
    place, shown = file_place(view, model, artefact), escape(file_name(artefact))
    if not (view.folder / place).is_file():
        return shown
    return f'<a href="{quote(place)}">{shown}</a>'
