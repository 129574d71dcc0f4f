"""The table of the report that compares the exported files with PyTorch, and the lists below it."""

from __future__ import annotations

from html import escape
from typing import Any

from bnn_itrd.plots import number
from bnn_itrd.report.files.links import file_link, file_name
from bnn_itrd.report.files.unchecked import unchecked_list
from bnn_itrd.report.files.usage import usage_list
from bnn_itrd.report.formats import as_bytes, as_milliseconds, as_percent, as_small, as_whole
from bnn_itrd.report.markup import missing, table
from bnn_itrd.report.view import View

__all__ = ["validation_section"]


def validation_section(view: View) -> str:
    """Returns the section "Validation" as HTML: the exported files, what was not checked, and how to use the files."""
    head = (
        "File",
        "Against PyTorch",
        "Agreement",
        "Images",
        "Largest<br>difference",
        "Median<br>difference",
        "Top-1",
        "Size",
        "ms per<br>image",
        "Start,<br>ms",
    )
    rows, disagreements = [], []
    for model in view.models:
        for artefact in model.get("artefacts") or []:
            target = escape(str(artefact.get("target") or ""))
            file = file_link(view, model, artefact)
            rows.append(
                (
                    f"<b>{file}</b><small>{view.swatch(model)}{', ' + target if target else ''}</small>",
                    _status(artefact),
                    as_percent(artefact.get("agreement")),
                    as_whole(artefact.get("images")),
                    as_small(artefact.get("max_difference")),
                    as_small(artefact.get("median_difference")),
                    as_percent(artefact.get("top1")),
                    as_bytes(artefact.get("bytes")),
                    as_milliseconds(artefact.get("ms_per_image")),
                    as_milliseconds(artefact.get("session_ms")),
                )
            )
            for item in artefact.get("disagreements") or []:
                disagreements.append(
                    (
                        f"{escape(file_name(artefact))}<small>{view.swatch(model)}</small>",
                        as_whole(item.get("index")),
                        escape(view.label(item.get("torch"))),
                        escape(view.label(item.get("file"))),
                        as_small(item.get("margin")),
                    )
                )
    if not rows:
        return missing("No files were exported.") + unchecked_list(view)
    lead = "Each exported file was run on test images, and its outputs compared with those of the PyTorch model."
    html = f'<p class="lead">{lead}</p>{table(head, rows, text=(0, 1))}'
    if disagreements:
        columns = ("File", "Image", "PyTorch", "File's answer", "Margin")
        html += f"<details open><summary>Images answered differently ({len(disagreements)})</summary>"
        html += table(columns, disagreements[:200], text=(0, 2, 3))
        html += '<p class="note">Margin: PyTorch\'s largest logit less its second largest.'
        html += f" The first 200 of {len(disagreements)}." if len(disagreements) > 200 else ""
        html += "</p></details>"
    return html + unchecked_list(view) + usage_list(view)


def _status(artefact: dict[str, Any]) -> str:
    if artefact.get("error"):
        return f'<span class="pill bad">failed</span><small>{escape(str(artefact["error"]))}</small>'
    agreement, images = number(artefact.get("agreement")), number(artefact.get("images"))
    if agreement is None:
        return '<span class="pill">not checked</span>'
    if agreement >= 100:
        return '<span class="pill good">same answers</span>'
    if images:
        differing = max(1, round((100 - agreement) / 100 * images))
        return f'<span class="pill fair">{differing} of {images:,.0f} differ</span>'
    return '<span class="pill fair">some differ</span>'
