"""The report's list of what was not checked, with the reasons, and with the commands that would do it."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from pathlib import PurePath
from typing import Any

from bnn_itrd.plots import model_name, number
from bnn_itrd.report.files.links import file_name, file_place
from bnn_itrd.report.speed import untimed
from bnn_itrd.report.view import View
from bnn_itrd.words import counted

__all__ = ["Unrun", "unchecked_list", "unrun_files"]

# Kind of file -> (why it was not run, the name for `validate --setup` that installs what is missing)
_RUNTIMES = {
    "lce": ("Larq Compute Engine's interpreter, which runs it, was not on the machine", "lce"),
    "qonnx": ("qonnx, which executes it, was not on the machine", "fpga"),
    "finn": ("qonnx, which executes it, was not on the machine", "fpga"),
}


@dataclass(frozen=True)
class Unrun:
    """Exported files of one kind that were not compared with PyTorch, all for the same reason.

    Args:
        target: the kind of file, such as lce
        files: for each file, the entries of its network and of the file in comparison.json
        reason: why they were not compared
        setup: the name for `bnn-itrd validate --setup`, which installs the missing runtime; "" if none is missing
    """

    target: str
    files: list[tuple[dict[str, Any], dict[str, Any]]]
    reason: str
    setup: str


def unrun_files(models: Iterable[dict[str, Any]]) -> list[Unrun]:
    """Returns the exported files that were not compared with PyTorch, grouped by their kind and the reason.

    `models` are the entries for the networks in comparison.json.
    """
    found: dict[tuple[str, str], list[tuple[dict[str, Any], dict[str, Any]]]] = defaultdict(list)
    for model in models:
        for artefact in model.get("artefacts") or []:
            if number(artefact.get("agreement")) is None:
                error = str(artefact.get("error") or "").partition("\n")[0]
                found[str(artefact.get("target") or ""), error].append((model, artefact))
    result = []
    for (target, error), files in found.items():
        reason, setup = _RUNTIMES.get(target, ("the record gives no reason", ""))
        result.append(Unrun(target, files, f"it failed: {error}" if error else reason, "" if error else setup))
    return result


def unchecked_list(view: View) -> str:
    """Returns as HTML a list of what was not checked, with the reasons; "" if everything was.

    It has files that were not run, or only on a part of the test images, speeds that were not measured, and files that
    were not written.
    """
    rows: list[tuple[str, str, list[str]]] = [*_files(view), *_speeds(view)]
    lacking: dict[tuple[str, str], list[str]] = defaultdict(list)
    for model in view.models:
        for missing in model.get("not_exported") or []:
            lacking[str(missing.get("target")), str(missing.get("reason"))].append(model_name(model))
    rows += [
        (f"{', '.join(names)} as a file for {target}", f"it was not made: {reason}", [])
        for (target, reason), names in lacking.items()
    ]
    items = "".join(_item(view, *row) for row in rows)
    return f'<h3>What was not checked</h3><ul class="unchecked">{items}</ul>' if items else ""


def _item(view: View, what: str, reason: str, command: list[str]) -> str:
    """Returns an entry of the list as HTML: what was not checked, the reason, and the command that checks it."""
    # If the run's path to the data was relative, the folder to which it was relative is not known.
    root = ((view.raw.get("config") or {}).get("data") or {}).get("root")
    if "validate" in command and isinstance(root, str) and not PurePath(root).is_absolute():
        command = [*command, "--data.root", f"PATH/TO/{root}"]
    # A span for each word keeps the browser from breaking a line after a hyphen.
    words = " ".join(f"<span>{escape(shlex.quote(word))}</span>" for word in command)
    shown = f"<pre>{words}</pre>" if words else ""
    return f"<li><b>{escape(what)}</b>: {escape(reason)}.{shown}</li>"


def _files(view: View) -> list[tuple[str, str, list[str]]]:
    """Returns (what, reason, command) for the files that were not run, and for those run on a part of the images."""
    parts: dict[tuple[str, int], list[tuple[str, str]]] = defaultdict(list)
    for model in view.models:
        for artefact in model.get("artefacts") or []:
            target, images = str(artefact.get("target") or ""), number(artefact.get("images"))
            found = f"{file_name(artefact)} of {model_name(model)}", file_place(view, model, artefact)
            if number(artefact.get("agreement")) is not None and images and view.images and images < view.images:
                parts[target, int(images)].append(found)
    rows = []
    for unrun in unrun_files(view.models):
        files = [(f"{file_name(a)} of {model_name(m)}", file_place(view, m, a)) for m, a in unrun.files]
        command = ["bnn-itrd", "validate", *(place for _, place in files)]
        rows.append((_names(files), unrun.reason, [*command, "--setup", unrun.setup] if unrun.setup else command))
    for (target, images), files in parts.items():
        slow = "qonnx executes it node by node" if target in ("qonnx", "finn") else "it runs at float speed"
        command = ["bnn-itrd", "validate", *(place for _, place in files), "--images", str(view.images)]
        reason = f"only the first {counted(images, 'test image')} were compared, because {slow}"
        rows.append((_names(files), reason, command))
    return rows


def _speeds(view: View) -> list[tuple[str, str, list[str]]]:
    """Returns (what, reason, command) for students that were not timed with, or not without, the native library."""
    lacking: dict[tuple[str, str, str], list[tuple[str, str]]] = defaultdict(list)
    for model in view.students:
        missing, file = untimed(view, model), _onnx(view, model)
        teacher = _onnx(view, view.teacher(model) or {})
        if missing is not None and file is not None and teacher is not None:
            lacking[*missing, teacher].append((model_name(model), file))
    return [
        (
            f"The speed of {_names(files)} {form}",
            reason,
            ["bnn-itrd", "bench", *(file for _, file in files), "--against", teacher],
        )
        for (form, reason, teacher), files in lacking.items()
    ]


def _onnx(view: View, model: dict[str, Any]) -> str | None:
    """Returns the path of a network's exported file of the kind onnx, or None if it has none."""
    files = (artefact for artefact in model.get("artefacts") or [] if artefact.get("target") == "onnx")
    first = next(files, None)
    return None if first is None else file_place(view, model, first)


def _names(files: list[tuple[str, str]]) -> str:
    return ", ".join(name for name, _ in files)
