"""Links from the page to exported files."""

from __future__ import annotations

from html import escape
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from bnn_itrd.plots import model_name
from bnn_itrd.report.view import View

__all__ = ["file_link", "file_name", "file_place"]


def file_name(artefact: dict[str, Any]) -> str:
    """Returns the name of the file, without a folder that a comparison of another program may have before it."""
    return PurePosixPath(str(artefact.get("file") or artefact.get("target") or "unnamed")).name or "unnamed"


def file_place(view: View, model: dict[str, Any], artefact: dict[str, Any]) -> str:
    """Returns the file's path from the page's folder: in the page's folder or in the model's, where it exists.

    If it exists in neither, it is the path that a run would give it.
    """
    name, usual = file_name(artefact), PurePosixPath(model_name(model)).name
    places = (f"{usual}/{name}", name)
    return next((place for place in places if (view.folder / place).is_file()), places[0])


def file_link(view: View, model: dict[str, Any], artefact: dict[str, Any]) -> str:
    """Returns the file's name as HTML, as a link if the file exists."""
    place, shown = file_place(view, model, artefact), escape(file_name(artefact))
    if not (view.folder / place).is_file():
        return shown
    return f'<a href="{quote(place)}">{shown}</a>'
