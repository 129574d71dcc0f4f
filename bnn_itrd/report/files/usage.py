"""The Python code with which an exported file is used, for each kind of file (onnx, onnx-plain, lce, qonnx, finn)."""

from __future__ import annotations

import json
from html import escape

from bnn_itrd.report.files.links import file_link, file_place
from bnn_itrd.report.view import View

__all__ = ["lines_for", "usage_list"]

_WHAT = {
    "onnx": "for onnxruntime on servers, computers, browsers and phones",
    "onnx-plain": "with standard ONNX operations alone, for OpenVINO and converters",
    "lce": "for Larq Compute Engine, on ARM phones and boards",
    "qonnx": "QONNX, for tools that make FPGA designs",
    "finn": "QONNX as FINN reads it, for AMD FPGAs",
}
_LINES = {
    "onnx": """from pathlib import Path
from bnn_itrd.export import classify_images
print(*classify_images(Path({file}), [Path("photo.png")]), sep="\\n")""",
    "onnx-plain": """import onnxruntime
opened = onnxruntime.InferenceSession({file})
logits = opened.run(None, {{"images": images}})[0]  # images: {shape} float32, normalised""",
    "lce": """from bnn_itrd.export.lce import run_lce
logits = run_lce({file}, images)  # images: {shape} float32, normalised
classes = logits.argmax(1)""",
    "qonnx": """from bnn_itrd.export.fpga import run_qonnx
logits = run_qonnx({file}, images)  # images: {shape} float32, normalised
classes = logits.argmax(1)""",
}
_LINES["finn"] = _LINES["qonnx"]


def lines_for(target: str, file: str, shape: str = "(n, c, h, w)") -> str:
    """Returns the lines of Python that run an exported file, or "" if its kind is unknown.

    target: the kind of file, such as onnx or lce; file: its path; shape: the images' shape, as text for a comment.

    >>> print(lines_for("lce", "student.tflite").splitlines()[0])
    from bnn_itrd.export.lce import run_lce
    """
    return _LINES[target].format(file=json.dumps(file), shape=shape) if target in _LINES else ""


def usage_list(view: View) -> str:
    """Returns as HTML a list of all exported files; a click on a file shows the Python code that runs it."""
    sides = [str(side) for side in (view.raw.get("dataset") or {}).get("input_shape") or ("c", "h", "w")]
    shape, html = f"(n, {', '.join(sides)})", ""
    for model in view.models:
        for artefact in model.get("artefacts") or []:
            target = str(artefact.get("target") or "")
            if not (lines := lines_for(target, file_place(view, model, artefact), shape)):
                continue
            title = f"<b>{file_link(view, model, artefact)}</b> of {view.swatch(model)}, {_WHAT[target]}"
            lines = f'<pre id="use-{escape(target)}-{view.place(model)}">{escape(lines)}</pre>'
            html += f"<details><summary>{title}</summary>{lines}</details>"
    if not html:
        return ""
    lead = "Paths are relative to the folder of this page. <code>images</code> is an array of images, "
    lead += "normalised with the <code>mean</code> and <code>std</code> of <code>bnn_itrd.export.read_metadata(file)"
    lead += "</code>; <code>classify_images</code> does that itself."
    return f'<h3>Use them in Python</h3><p class="note">{lead}</p><div class="uses">{html}</div>'
