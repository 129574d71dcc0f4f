"""The report's section "Differences": test images on which the networks disagree, with each network's answer."""

from __future__ import annotations

import base64
import binascii
from html import escape
from typing import Any

from bnn_itrd.plots import model_name
from bnn_itrd.report.markup import colour_square, missing
from bnn_itrd.report.view import View
from bnn_itrd.words import counted

__all__ = ["differences_section"]

_SHOWN_IMAGES, _MOST_IMAGES = 24, 240
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def _picture(png: Any) -> str:
    """Returns the HTML of a PNG in base64, shown with sharp pixels if it is small; for anything else a placeholder."""
    try:
        data = base64.b64decode(png, validate=True)
    except (TypeError, ValueError, binascii.Error):
        data = b""
    if not data.startswith(_PNG_SIGNATURE) or len(data) < 24:
        return '<div class="blank">no image</div>'
    hard = " pixelated" if int.from_bytes(data[16:20], "big") <= 96 else ""
    return f'<img class="thumbnail{hard}" alt="" src="data:image/png;base64,{base64.b64encode(data).decode()}">'


def differences_section(view: View) -> str:
    """Returns the section "Differences" as HTML: for each image its true class and each network's answer."""
    differences = view.raw.get("differences") or []
    if not differences:
        return missing("The run recorded no image on which teacher and student differ.")
    by_name = {model_name(model): model for model in view.models}
    cards = []
    for difference in differences[:_MOST_IMAGES]:
        label, answers = difference.get("label"), ""
        for name, prediction in (difference.get("predictions") or {}).items():
            name = str(name)
            kind_of = view.kind(by_name[name]) if name in by_name else ""
            full = escape(f"{name}, {kind_of}" if kind_of else name)
            colour = view.colour(by_name[name]) if name in by_name else "var(--faint)"
            answer = escape(view.label(prediction))
            kind, mark = ("good", "&#10003;") if prediction == label else ("bad", "&#10007;")
            answers += f'<li>{colour_square(colour)}<span class="who" title="{full}">{escape(name)}</span>'
            answers += f'<b class="{kind}" title="{answer}">{answer}</b><b class="{kind}">&nbsp;{mark}</b></li>'
        index = difference.get("index")
        true = escape(view.label(label))
        title = f'<span class="who" title="{true}">true: <b>{true}</b></span>'
        title += "" if index is None else f"<small>image {escape(str(index))}</small>"
        picture = _picture(difference.get("png"))
        cards.append(f'<li class="difference">{picture}<p>{title}</p><ul>{answers}</ul></li>')
    kind = "thumbnails wide" if max(map(len, view.classes), default=0) > 8 else "thumbnails"
    html = '<p class="lead">Test images on which the models disagree.</p>'
    html += f'<ul class="{kind}">{"".join(cards[:_SHOWN_IMAGES])}</ul>'
    if rest := cards[_SHOWN_IMAGES:]:
        html += f"<details><summary>{len(rest)} more</summary>"
        html += f'<ul class="{kind}">{"".join(rest)}</ul></details>'
    if len(differences) > _MOST_IMAGES:
        told = counted(len(differences) - _MOST_IMAGES, "further image is", "further images are")
        html += f'<p class="note">{told} left out of this page.</p>'
    return html
