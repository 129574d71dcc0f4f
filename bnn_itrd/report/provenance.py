"""The report's section "Setup": the machine on which a run was made, and its configuration."""

from __future__ import annotations

import json
from html import escape
from typing import Any

from bnn_itrd.report.formats import DASH
from bnn_itrd.report.markup import missing
from bnn_itrd.report.view import View

__all__ = ["setup_section"]


def setup_section(view: View) -> str:
    """Returns the section "Setup" as HTML: the machine and the versions of libraries, and the run's configuration."""

    def entry(key: Any, value: Any) -> str:
        if isinstance(value, (dict, list)):
            value = json.dumps(value, ensure_ascii=False, default=str)
        shown = DASH if value is None else escape(str(value))
        return f"<div><dt>{escape(str(key))}</dt><dd>{shown}</dd></div>"

    html = ""
    if environment := view.raw.get("environment"):
        entries = "".join(entry(key, value) for key, value in environment.items())
        html += f"<details open><summary>Environment</summary><dl>{entries}</dl></details>"
    if config := view.raw.get("config"):
        text = escape(json.dumps(config, indent=2, ensure_ascii=False, default=str))
        html += f"<details><summary>Configuration</summary><pre>{text}</pre></details>"
    return html or missing("The run recorded neither its machine nor its configuration.")
