"""A comparison of a teacher and its students as one self-contained HTML page."""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from bnn_itrd.plots import (
    COLOURS,
    Dot,
    Line,
    bar_chart,
    colour_index,
    confusion_image,
    confusion_table,
    curve,
    last_and_best,
    line_chart,
    number,
    plot_curves,
    scatter_chart,
    write_atomically,
)

__all__ = ["headline", "plot_curves", "wilson_interval", "write_report"]

_DASH = '<span class="none">&mdash;</span>'
_MOST_CLASSES = 20  # up to here a confusion matrix has numbers, and a per-class chart every class
_SHOWN_IMAGES, _MOST_IMAGES = 24, 240
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def write_report(comparison: dict[str, Any], path: Path) -> Path:
    """Writes the page to `path`, whole or not at all: it needs no network and no other file.

    Every key but "models" may be missing, and every number None. Raises ValueError unless the comparison has
    a list of models and format 1.
    """
    path, view = Path(path), _View.of(comparison)
    sections = (
        ("comparison", "Comparison", _comparison_section),
        ("curves", "Training", _curves_section),
        ("tradeoffs", "Size and latency", _tradeoffs_section),
        ("classes", "Classes", _classes_section),
        ("confusion", "Confusion", _confusion_section),
        ("differences", "Differences", _differences_section),
        ("validation", "Validation", _validation_section),
        ("setup", "Setup", _setup_section),
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
        f"<title>{escape(title)}</title><style>{_theme()}{_STYLE}</style></head>\n"
        f'<body><header id="summary">{_summary(view, title)}<nav>{links}</nav></header>\n<main>{body}</main>'
        "<footer>Written by bnn_itrd. Top-1 is that of the last epoch unless it says best.</footer>"
        "</body></html>\n"
    )
    with write_atomically(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="xmlcharrefreplace")
    return path


def headline(comparison: dict[str, Any]) -> str:
    """One line of plain text: "Student recu: 97.2 % top-1, 1.1 points below its teacher, 28x smaller"."""
    view = _View.of(comparison)
    model = view.best
    if model is None:
        return "No models to compare"
    top1, teacher = _top1(model), view.teacher(model)
    text = f"{'Model' if teacher is None else 'Student'} {_name(model)}: "
    text += "accuracy not measured" if top1 is None else f"{_floor(top1, 1)} % top-1"
    if teacher is not None:
        gap, ratio = _gap(model, teacher), _ratio(teacher, model)
        if gap is not None:
            if abs(gap) < 0.05:
                text += ", level with its teacher"
            else:
                text += f", {abs(gap):.1f} points {'above' if gap > 0 else 'below'} its teacher"
        if ratio is not None and ratio > 1.05:
            text += f", {_times(ratio)} smaller"
    return text


def wilson_interval(percent: float, n: int) -> tuple[float, float]:
    """95 % score interval of an accuracy in percent, measured on n images. Wilson, JASA 1927."""
    z, p = 1.959964, percent / 100
    middle, spread = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 100 / (1 + z * z / n)
    return max(0.0, scale * (middle - spread)), min(100.0, scale * (middle + spread))


@dataclass(frozen=True)
class _View:
    """The comparison with its missing pieces filled in by empty ones."""

    raw: dict[str, Any]
    models: list[dict[str, Any]]
    classes: list[str]
    images: int | None

    @classmethod
    def of(cls, comparison: dict[str, Any]) -> _View:
        models = comparison.get("models")
        if not isinstance(models, list) or not all(isinstance(model, dict) for model in models):
            raise ValueError(f'comparison["models"] must be a list of dicts, got {models!r:.80}')
        if comparison.get("format", 1) != 1:
            raise ValueError(f'comparison["format"] must be 1, got {comparison["format"]!r}')
        dataset = comparison.get("dataset") or {}
        images = number(dataset.get("test"))
        names = [str(name) for name in dataset.get("classes") or []]
        return cls(comparison, models, names, int(images) if images else None)

    def teacher(self, model: dict[str, Any]) -> dict[str, Any] | None:
        """The model that `reference` names, else the comparison's teacher; None for a teacher itself."""
        if model.get("method") == "teacher":
            return None
        for other in self.models:
            if other is not model and model.get("reference") and other.get("name") == model["reference"]:
                return other
        named = {other.get("reference") for other in self.models} - {None}
        if model.get("name") in named:
            return None
        teachers = (other for other in self.models if other.get("method") == "teacher")
        return next(teachers, next((other for other in self.models if other.get("name") in named), None))

    @property
    def students(self) -> list[dict[str, Any]]:
        """The best first."""
        found = [model for model in self.models if self.teacher(model) is not None]
        return sorted(found, key=lambda model: (not model.get("binary"), -(_top1(model) or 0.0)))

    @property
    def best(self) -> dict[str, Any] | None:
        """The student with the highest top-1, binary ones first; without students, the first model."""
        return next(iter(self.students or self.models), None)

    def place(self, model: dict[str, Any]) -> int:
        return next(i for i, other in enumerate(self.models) if other is model)

    def colour(self, model: dict[str, Any]) -> str:
        return f"var(--s{colour_index(self.place(model))})"

    def label(self, index: Any) -> str:
        """The name of a class from its index."""
        if isinstance(index, int) and 0 <= index < len(self.classes):
            return self.classes[index]
        return "\u2014" if index is None else str(index)

    def swatch(self, model: dict[str, Any]) -> str:
        # The second round of colours is drawn dashed, and hollow here.
        kind = "swatch" if self.place(model) < len(COLOURS) else "swatch hollow"
        return f'<span class="{kind}" style="--c:{self.colour(model)}"></span>{escape(_name(model))}'


def _name(model: dict[str, Any]) -> str:
    return str(model.get("name") or "unnamed")


def _top1(model: dict[str, Any]) -> float | None:
    last = number(model.get("top1_last"))
    return number(model.get("top1_best")) if last is None else last


def _gap(model: dict[str, Any], teacher: dict[str, Any] | None) -> float | None:
    """Points above the teacher."""
    mine, theirs = _top1(model), None if teacher is None else _top1(teacher)
    return None if mine is None or theirs is None else mine - theirs


def _ratio(teacher: dict[str, Any], model: dict[str, Any]) -> float | None:
    big, small = number(teacher.get("bytes")), number(model.get("bytes"))
    return big / small if big and small else None


def _per_class(model: dict[str, Any]) -> list[float | None]:
    """Accuracy per class in percent, from the confusion matrix where it is not given."""
    if model.get("per_class"):
        return [number(value) for value in model["per_class"]]
    sums = [sum(number(value) or 0.0 for value in row) for row in _matrix(model)]
    return [100 * (number(row[i]) or 0.0) / sums[i] if sums[i] else None for i, row in enumerate(_matrix(model))]


def _matrix(model: dict[str, Any]) -> list[list[Any]]:
    """The confusion matrix, or nothing where it is missing or not square."""
    matrix = model.get("confusion") or []
    return matrix if all(len(row) == len(matrix) for row in matrix) else []


# Numbers as HTML: a dash stands for None.


def _floor(value: float, digits: int) -> str:
    """Fixed digits, never rounded up to a full 100."""
    text = f"{value:.{digits}f}"
    return text if value >= 100 or float(text) < 100 else f"{100 - 10**-digits:.{digits}f}"


def _number(value: Any, write: Callable[[float], str]) -> str:
    found = number(value)
    return _DASH if found is None else write(found)


def _percent(value: Any) -> str:
    return _number(value, lambda v: _floor(v, 2))


def _signed(value: Any) -> str:
    return _number(value, lambda v: "0.00" if abs(v) < 0.005 else f"{'+' if v > 0 else '&minus;'}{abs(v):.2f}")


def _whole(value: Any) -> str:
    return _number(value, lambda v: f"{v:,.0f}")


def _scaled(value: Any, units: Sequence[str] = ("", "k", "M", "G", "T")) -> str:
    """1077736 -> 1.08 M."""

    def write(v: float) -> str:
        power = 0
        while abs(v) >= 999.5 and power < len(units) - 1:
            v, power = v / 1000, power + 1
        text = f"{v:.0f}" if abs(v) >= 99.95 or v == int(v) else f"{v:.3g}"
        return f"{text} {units[power]}".strip()

    return _number(value, write)


def _bytes(value: Any) -> str:
    return _scaled(value, ("B", "kB", "MB", "GB", "TB"))


def _times(ratio: float) -> str:
    return f"{ratio:.0f}x" if ratio >= 9.95 else f"{ratio:.1f}x"


def _milliseconds(value: Any) -> str:
    return _number(value, lambda v: f"{v:,.0f}" if v >= 99.5 else f"{v:.3g}")


def _small(value: Any) -> str:
    return _number(value, lambda v: "0" if v == 0 else f"{v:.1e}".replace("e-0", "e-").replace("e+0", "e+"))


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], *, text: Sequence[int] = (0,)) -> str:
    """Cells are HTML; the columns in `text` hold words and stand at the left."""

    def cells(tag: str, row: Sequence[str]) -> str:
        return "".join(f"<{tag}{' class=words' if i in text else ''}>{cell}</{tag}>" for i, cell in enumerate(row))

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    table = f"<table><thead><tr>{cells('th', head)}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="scroll">{table}</div>'


def _missing(text: str) -> str:
    return f'<p class="missing">{text}</p>'


def _figure(title: str, content: str, note: str = "") -> str:
    note = f'<p class="note">{note}</p>' if note else ""
    return f"<figure><figcaption>{title}</figcaption>{content}{note}</figure>"


def _grid(figures: Iterable[str], kind: str = "halves") -> str:
    return f'<div class="grid {kind}">{"".join(figures)}</div>'


def _more(title: str, figures: Sequence[str], kind: str = "halves") -> str:
    return f"<details><summary>{title}</summary>{_grid(figures, kind)}</details>" if figures else ""


def _legend(view: _View, notes: Iterable[str]) -> str:
    items = zip(view.models, notes, strict=True)
    return '<p class="legend">' + "".join(f"<span>{view.swatch(m)}<i>{note}</i></span>" for m, note in items) + "</p>"


# Sections.


def _summary(view: _View, title: str) -> str:
    recipe, dataset = view.raw.get("recipe"), view.raw.get("dataset") or {}
    over = ["bnn_itrd"] + [escape(str(name)) for name in dict.fromkeys((recipe, dataset.get("name"))) if name]
    facts = []
    if view.images:
        facts.append(f"{view.images:,} test images")
    if number(dataset.get("train")):
        facts.append(f"{dataset['train']:,} for training")
    if view.classes:
        facts.append(f"{len(view.classes)} classes")
    if shape := dataset.get("input_shape"):
        facts.append("input&nbsp;" + "&nbsp;&times;&nbsp;".join(escape(str(side)) for side in shape))
    # Keep a number and its unit on one line.
    heading = escape(title).replace(" %", "&nbsp;%").replace(" points", "&nbsp;points")
    heading = heading.replace("top-1", '<span class="range">top-1</span>')
    html = f'<p class="over">{" / ".join(over)}</p><h1>{heading}</h1>'
    html += f'<p class="facts">{" &middot; ".join(facts)}</p>'
    tiles = "".join(
        f'<div class="tile"><span>{name}</span><strong>{value}</strong><small>{note}</small></div>'
        for name, value, note in _tiles(view)
    )
    return html + f'<div class="tiles">{tiles}</div>'


def _tiles(view: _View) -> list[tuple[str, str, str]]:
    """(name, value, note) of the numbers to read first, those of the best student."""
    model = view.best
    if model is None:
        return []
    teacher, top1 = view.teacher(model), _top1(model)
    tiles = []
    if top1 is not None:
        tiles.append(("Top-1 accuracy", f"{_percent(top1)} <em>%</em>", _interval(top1, view.images)))
    if _gap(model, teacher) is not None and teacher is not None:
        note = f"{escape(_name(teacher))}: {_percent(_top1(teacher))} %"
        tiles.append(("Against its teacher", f"{_signed(_gap(model, teacher))} <em>points</em>", note))
    if number(model.get("bytes")) is not None:
        ratio = None if teacher is None else _ratio(teacher, model)
        note = "" if ratio is None else f"teacher: {_bytes(teacher and teacher.get('bytes'))}, {_times(ratio)}"
        tiles.append(("Size of the weights", _bytes(model["bytes"]), note))
    if number(model.get("agreement_with_teacher")) is not None:
        value = f"{_percent(model['agreement_with_teacher'])} <em>%</em>"
        tiles.append(("Agrees with its teacher", value, "same answer on a test image"))
    if number(model.get("ms_per_image")) is not None:
        note = escape(str(model.get("ms_what") or ""))
        tiles.append(("Time per image", f"{_milliseconds(model['ms_per_image'])} <em>ms</em>", note))
    artefacts = [artefact for m in view.models for artefact in m.get("artefacts") or []]
    if artefacts:
        same = sum(number(artefact.get("agreement")) == 100 for artefact in artefacts)
        note = "give PyTorch's answer on every image"
        tiles.append(("Exported files", f"{same} of {len(artefacts)}", note))
    return tiles


def _interval(top1: float | None, images: int | None) -> str:
    if top1 is None or not images or not 0 <= top1 <= 100:
        return ""
    low, high = wilson_interval(top1, images)
    return f'95 % interval <span class="range">{low:.1f}&ndash;{high:.1f}</span>'


def _comparison_section(view: _View) -> str:
    if not view.models:
        return _missing("The comparison holds no models.")
    head = (
        "Model",
        "Top-1<br>last",
        "Top-1<br>best",
        "Top-5<br>last",
        "Against<br>teacher",
        "Agrees with<br>teacher",
        "Parameters",
        "Size",
        "Smaller than<br>float32",
        "Binary<br>MACs",
        "Float<br>MACs",
        "ms per<br>image",
    )
    rows = []
    for model in view.models:
        words = [str(model[key]) for key in ("network", "method") if model.get(key)]
        if "binary" in model:
            words.append("1-bit" if model["binary"] else "float")
        epoch = number(model.get("best_epoch"))
        best = _percent(model.get("top1_best")) + ("" if epoch is None else f"<small>epoch {epoch:g}</small>")
        top1 = _percent(model.get("top1_last"))
        interval = _interval(number(model.get("top1_last")), view.images).removeprefix("95 % interval ")
        rows.append(
            (
                f"<b>{view.swatch(model)}</b><small>{escape(', '.join(words))}</small>",
                f"<b>{top1}</b><small>{interval}</small>",
                best,
                _percent(model.get("top5_last")),
                _signed(_gap(model, view.teacher(model))),
                _percent(model.get("agreement_with_teacher")),
                _whole(model.get("parameters")),
                _bytes(model.get("bytes")),
                _number(model.get("compression"), _times),
                _scaled(model.get("binary_macs")),
                _scaled(model.get("float_macs")),
                _milliseconds(model.get("ms_per_image")),
            )
        )
    # Without a validation set the best epoch flatters.
    picked = "" if number((view.raw.get("dataset") or {}).get("val")) else ", on which the best epoch was picked too"
    notes = [f"Accuracies are in percent of the test images{picked}."]
    if view.images:
        notes.append(f"Small ranges are 95 % Wilson intervals over {view.images:,} images.")
    notes.append("MACs are multiply-accumulates per image, binary ones an XNOR and a bit count.")
    whats = dict.fromkeys(str(m["ms_what"]) for m in view.models if m.get("ms_what"))
    if whats:
        notes.append(f"Time per image: {escape('; '.join(whats))}.")
    return _table(head, rows) + f'<p class="note">{" ".join(notes)}</p>'


def _curves_section(view: _View) -> str:
    def lines(key: str, *, late: bool = False) -> list[Line]:
        found = []
        for place, model in enumerate(view.models):
            points = curve(model, key)
            best = last_and_best(model)
            if late and points:
                points = [point for point in points if point[0] >= points[-1][0] / 2]
            mark = best[1] if best and key == "test_top1" else None
            found.append(Line(_name(model), points, view.colour(model), place >= len(COLOURS), mark))
        found = [line for line in found if line.points]
        if key != "test_top1" or not found:
            return found
        # A model without a curve, such as a teacher from a file, is a level to compare with.
        epochs = [epoch for line in found for epoch, _ in line.points]
        for model in view.models:
            level = _top1(model)
            if not curve(model, key) and level is not None:
                ends = [(min(epochs), level), (max(epochs), level)]
                found.append(Line(_name(model), ends, view.colour(model), True))
        return found

    figures = []
    accuracy, late = lines("test_top1"), lines("test_top1", late=True)
    if accuracy:
        figures.append(_figure("Test accuracy", line_chart(accuracy, label="Test accuracy per epoch", y_label="%")))
    if max((len(line.points) for line in accuracy), default=0) > 7:
        chart = line_chart(late, label="Test accuracy, second half", y_label="%")
        figures.append(_figure("Test accuracy, second half of training", chart))
    for key, title in (("loss", "Training loss"), ("test_loss", "Test loss")):
        if found := lines(key):
            chart = line_chart(found, label=f"{title} per epoch", y_label=key.replace("_", " "), log=_spread(found))
            figures.append(_figure(title, chart))
    if not figures:
        return _missing("No curves were recorded.")
    legend = _legend(view, [_training_note(model) for model in view.models])
    note = (
        "A dot marks the last epoch and a ring the best. Training losses differ in their terms: only their "
        "shapes compare."
    )
    return legend + _grid(figures) + f'<p class="note">{note}</p>' + _loss_terms(view)


def _spread(lines: Sequence[Line]) -> bool:
    """Whether a logarithmic axis shows the values better."""
    values = [value for line in lines for _, value in line.points]
    return min(values) > 0 and max(values) > 30 * min(values)


def _training_note(model: dict[str, Any]) -> str:
    seconds = sum(value for _, value in curve(model, "seconds"))
    epochs = number(model.get("epochs"))
    words = ([] if epochs is None else [f"{epochs:g} epochs"]) + ([_duration(seconds)] if seconds else [])
    if not curve(model, "test_top1"):
        words.append("no curve, dashed" if _top1(model) is not None else "no curve")
    return ", ".join(words)


def _loss_terms(view: _View) -> str:
    figures = []
    for model in view.models:
        rows = model.get("curve") or []
        names = list(dict.fromkeys(str(name) for row in rows for name in row.get("train_loss_parts") or {}))
        found = [(name, curve(model, "train_loss_parts", name)) for name in names]
        lines = [
            Line(name, points, f"var(--s{(i + 1) % len(COLOURS)})") for i, (name, points) in enumerate(found) if points
        ]
        if len(lines) < 2:
            continue
        keys = "".join(
            f'<span><span class="swatch" style="--c:{line.colour}"></span>{escape(line.name)}</span>' for line in lines
        )
        chart = line_chart(lines, label=f"Loss terms of {_name(model)}", y_label="loss", log=_spread(lines))
        figures.append(_figure(escape(_name(model)), f'<p class="legend">{keys}</p>{chart}'))
    return _more("Terms of the training loss", figures)


def _tradeoffs_section(view: _View) -> str:
    figures = []
    for key, title, write, unit in (
        ("bytes", "Accuracy against size", _bytes, "size of the weights"),
        ("ms_per_image", "Accuracy against latency", _milliseconds, "ms per image"),
    ):
        dots: list[Dot] = []
        for model in view.models:
            sources = [(model, _name(model), _top1(model))]
            sources += [
                (artefact, f"{_name(model)} ({artefact.get('target', 'file')})", number(artefact.get("top1")))
                for artefact in model.get("artefacts") or []
            ]
            for source, name, top1 in sources:
                x = number(source.get(key))
                known = dots and dots[-1].x == x and dots[-1].y == top1
                if x is None or top1 is None or (source is not model and known):
                    continue
                note = f"{_floor(top1, 2)} %, {write(x)}"
                dots.append(Dot(name, x, top1, view.colour(model), source is not model, note))
        if dots:
            chart = scatter_chart(dots, label=title, x_label=unit, y_label="top-1, %", x_text=write)
            figures.append(_figure(title, chart))
    if not figures:
        return _missing("Neither sizes nor times were measured.")
    note = "Dots: the networks, binary weights counted as one bit. Rings: their exported files, as measured."
    return _grid(figures) + f'<p class="note">{note}</p>'


def _classes_section(view: _View) -> str:
    found, note = [], ""
    for model in view.students:
        teacher = view.teacher(model)
        before, after = _per_class(teacher or {}), _per_class(model)
        if not before or len(before) != len(after):
            continue
        pairs = enumerate(zip(before, after, strict=True))
        changes = [(view.label(i), b - a) for i, (a, b) in pairs if a is not None and b is not None]
        if len(changes) > _MOST_CLASSES:
            note = f"The {_MOST_CLASSES} most changed of {len(changes)} classes."
            changes = sorted(changes, key=lambda change: -abs(change[1]))[:_MOST_CLASSES]
        changes.sort(key=lambda change: -change[1])
        if changes:
            found.append((model, changes))
    if not found:
        return _missing("No accuracy per class was recorded for a student and its teacher.")
    values = [change for _, changes in found for _, change in changes]
    low, high = min(0.0, *values), max(0.0, *values)
    figures = [
        _figure(
            view.swatch(model),
            bar_chart(changes, low=low, high=high, label=f"Change of accuracy per class, {_name(model)}"),
        )
        for model, changes in found
    ]
    more = _more("Other students", figures[3:], "thirds")
    lead = "Change of each class's accuracy from teacher to student, in percentage points."
    return f'<p class="lead">{lead} {note}</p>{_grid(figures[:3], "thirds")}{more}'


def _confusion_section(view: _View) -> str:
    best = view.best
    order = [model for model in (view.teacher(best) if best else None, best) if model is not None]
    order += [model for model in view.models if not any(model is other for other in order)]
    figures = []
    for model in order:
        matrix = _matrix(model)
        if not matrix:
            continue
        if len(matrix) <= _MOST_CLASSES:
            names = [view.label(i) for i in range(len(matrix))]
            chart = confusion_table(matrix, names, label=f"Confusion matrix of {_name(model)}")
        else:
            alt = escape(f"Confusion matrix of {_name(model)}")
            chart = f'<img class="matrix pixelated" alt="{alt}" src="{confusion_image(matrix)}">'
            chart = f'<div class="framed"><span>predicted</span><span>true</span>{chart}</div>'
        wrong = [
            (count, i, j)
            for i, row in enumerate(matrix)
            for j, value in enumerate(row)
            if i != j and (count := number(value) or 0) > 0
        ]
        wrong.sort(key=lambda entry: (-entry[0], entry[1:]))
        pairs = [f"{escape(view.label(i))} as {escape(view.label(j))} ({count:g})" for count, i, j in wrong[:6]]
        note = "Most often mistaken: " + ", ".join(pairs) + "." if pairs else "No mistakes."
        figures.append(_figure(view.swatch(model), chart, note))
    if not figures:
        return _missing("No confusion matrices were recorded.")
    lead = "Rows are true classes, columns predictions. Blue: right. Red: wrong, on a square-root scale."
    return f'<p class="lead">{lead}</p>{_grid(figures[:2])}{_more("Other models", figures[2:])}'


def _picture(png: Any) -> str:
    """An img of a base64 PNG, with hard pixels where it is small; a blank for anything else."""
    try:
        data = base64.b64decode(png, validate=True)
    except (TypeError, ValueError, binascii.Error):
        data = b""
    if not data.startswith(_PNG_SIGNATURE) or len(data) < 24:
        return '<div class="blank">no image</div>'
    hard = " pixelated" if int.from_bytes(data[16:20], "big") <= 96 else ""
    return f'<img class="thumbnail{hard}" alt="" src="data:image/png;base64,{base64.b64encode(data).decode()}">'


def _differences_section(view: _View) -> str:
    differences = view.raw.get("differences") or []
    if not differences:
        return _missing("No image is listed on which teacher and student differ.")
    by_name = {_name(model): model for model in view.models}
    cards = []
    for difference in differences[:_MOST_IMAGES]:
        label, answers = difference.get("label"), ""
        for name, prediction in (difference.get("predictions") or {}).items():
            name = str(name)
            colour = view.colour(by_name[name]) if name in by_name else "var(--faint)"
            answer = escape(view.label(prediction))
            kind, mark = ("good", "&#10003;") if prediction == label else ("bad", "&#10007;")
            answers += f'<li><span class="swatch" style="--c:{colour}"></span>'
            answers += f'<span class="who" title="{escape(name)}">{escape(name)}</span>'
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
        html += f'<p class="note">{len(differences) - _MOST_IMAGES} further images are left out of this page.</p>'
    return html


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


def _validation_section(view: _View) -> str:
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
            file = escape(str(artefact.get("file") or target or "unnamed"))
            rows.append(
                (
                    f"<b>{file}</b><small>{view.swatch(model)}{', ' + target if target else ''}</small>",
                    _status(artefact),
                    _percent(artefact.get("agreement")),
                    _whole(artefact.get("images")),
                    _small(artefact.get("max_difference")),
                    _small(artefact.get("median_difference")),
                    _percent(artefact.get("top1")),
                    _bytes(artefact.get("bytes")),
                    _milliseconds(artefact.get("ms_per_image")),
                    _milliseconds(artefact.get("session_ms")),
                )
            )
            for item in artefact.get("disagreements") or []:
                disagreements.append(
                    (
                        f"{file}<small>{view.swatch(model)}</small>",
                        _whole(item.get("index")),
                        escape(view.label(item.get("torch"))),
                        escape(view.label(item.get("file"))),
                        _small(item.get("margin")),
                    )
                )
    if not rows:
        return _missing("No files were exported.")
    lead = "Each exported file was run on test images, and its outputs compared with those of the PyTorch model."
    html = f'<p class="lead">{lead}</p>{_table(head, rows, text=(0, 1))}'
    if disagreements:
        columns = ("File", "Image", "PyTorch", "File's answer", "Margin")
        html += f"<details open><summary>Images answered differently ({len(disagreements)})</summary>"
        html += _table(columns, disagreements[:200], text=(0, 2, 3))
        html += '<p class="note">Margin: by how much PyTorch preferred its answer.'
        html += f" The first 200 of {len(disagreements)}." if len(disagreements) > 200 else ""
        html += "</p></details>"
    return html


def _setup_section(view: _View) -> str:
    def entry(key: Any, value: Any) -> str:
        if isinstance(value, (dict, list)):
            value = json.dumps(value, ensure_ascii=False, default=str)
        shown = _DASH if value is None else escape(str(value))
        return f"<div><dt>{escape(str(key))}</dt><dd>{shown}</dd></div>"

    html = ""
    if environment := view.raw.get("environment"):
        entries = "".join(entry(key, value) for key, value in environment.items())
        html += f"<details open><summary>Environment</summary><dl>{entries}</dl></details>"
    if config := view.raw.get("config"):
        text = escape(json.dumps(config, indent=2, ensure_ascii=False, default=str))
        html += f"<details><summary>Configuration</summary><pre>{text}</pre></details>"
    return html or _missing("Neither environment nor configuration was recorded.")


def _theme() -> str:
    """The colours of the models as CSS variables, for the light theme and the dark one."""
    light, dark = ("".join(f"--s{i}:{pair[theme]};" for i, pair in enumerate(COLOURS)) for theme in (0, 1))
    return f":root{{{light}}}@media(prefers-color-scheme:dark){{:root{{{dark}}}}}"


_STYLE = """
:root{color-scheme:light dark;--page:#f4f6f9;--card:#fff;--ink:#16202e;--soft:#56637a;--faint:#8a96a8;
--line:#e3e8ef;--accent:#2563eb;--on:#fff;--good:#0b7a57;--goodbg:#dcf5ea;--bad:#c02626;--badbg:#fde5e5;
--fair:#8a5a00;--fairbg:#fdf0d0;--cell:#f1f4f8;--right:#2563eb;--wrong:#dc2626}
@media(prefers-color-scheme:dark){:root{--page:#0d131c;--card:#161e2a;--ink:#e8edf4;--soft:#a3b0c2;--faint:#74829a;
--line:#2a3546;--accent:#7db0ff;--on:#fff;--good:#4adcae;--goodbg:#10382c;--bad:#ff8f8f;--badbg:#451d20;
--fair:#f0c35e;--fairbg:#3d300f;--cell:#1d2735;--right:#3b7cf0;--wrong:#ef5350}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue",Arial,"DejaVu Sans",sans-serif;-webkit-text-size-adjust:100%}
header,main,footer{max-width:1180px;margin:0 auto;padding:0 24px}
header{padding-top:44px}
.over{margin:0;color:var(--accent);font-size:13px;font-weight:600;letter-spacing:.03em}
h1{margin:6px 0 8px;font-size:clamp(23px,3.4vw,34px);line-height:1.2;letter-spacing:-.015em;text-wrap:balance;
overflow-wrap:anywhere}
h2{margin:0 0 14px;font-size:19px;letter-spacing:-.01em}
.facts{margin:0 0 22px;color:var(--soft)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(165px,1fr));gap:12px}
.tile{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:13px 15px}
.tile span,.tile small{display:block;color:var(--soft);font-size:12.5px;line-height:1.35}
.tile strong{display:block;margin:3px 0 2px;font-size:22px;line-height:1.25;letter-spacing:-.01em;
font-variant-numeric:tabular-nums}
.tile em{font-style:normal;font-size:15px;font-weight:600;color:var(--soft)}
.tile .none,.tile .range{display:inline}
.range{white-space:nowrap}
nav{display:flex;flex-wrap:wrap;gap:4px 18px;margin:20px 0 14px}
a{color:var(--accent);text-decoration:none}
a:hover{text-decoration:underline}
nav a{font-size:14px}
.card{background:var(--card);border:1px solid var(--line);border-radius:14px;padding:22px 24px;
margin:0 0 18px;scroll-margin-top:12px}
.lead,.note,.missing,footer{color:var(--soft)}
.lead{margin:-6px 0 16px}
.note{margin:12px 0 0;font-size:13px}
.missing{margin:0}
footer{padding-bottom:40px;font-size:13px}
small{font-size:12px;color:var(--soft);font-weight:400}
.none{color:var(--faint)}
.scroll{overflow-x:auto;margin:0 -24px;padding:0 24px}
table{border-collapse:collapse;width:100%;font-size:14px;font-variant-numeric:tabular-nums}
th{color:var(--soft);font-size:12.5px;font-weight:500;line-height:1.3;vertical-align:bottom;
border-bottom:1px solid var(--line)}
th,td{padding:8px 9px;text-align:right;white-space:nowrap}
td{vertical-align:top;border-top:1px solid var(--line)}
tbody tr:first-child td{border-top:0}
tbody tr:hover td{background:var(--cell)}
td small{display:block}
.words{text-align:left}
th:first-child,td:first-child{padding-left:0}
th:last-child,td:last-child{padding-right:0}
.swatch{display:inline-block;width:10px;height:10px;border-radius:3px;margin-right:7px;background:var(--c)}
.swatch.hollow{background:none;border:2.5px solid var(--c)}
small .swatch{width:8px;height:8px;margin-right:5px}
.legend{display:flex;flex-wrap:wrap;gap:4px 22px;margin:0 0 12px;font-size:14px}
.legend i{margin-left:7px;color:var(--soft);font-style:normal;font-size:13px}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr));gap:26px 34px}
.grid.thirds{grid-template-columns:repeat(auto-fit,minmax(min(100%,320px),1fr))}
.thirds figure{max-width:480px}
figure{margin:0;min-width:0;max-width:640px}
figcaption{margin:0 0 8px;font-weight:600;font-size:14.5px;overflow-wrap:anywhere}
.chart{display:block;width:100%;height:auto;overflow:visible;font-family:inherit}
.matrix{max-width:560px}
.chart text{fill:var(--soft);font-size:11px;font-variant-numeric:tabular-nums}
.chart .label{fill:var(--ink);font-size:11.5px}
.chart .count{fill:var(--ink)}
.chart .count.on{fill:var(--on)}
.axis{stroke:var(--faint);stroke-width:1}
.rule{stroke:var(--line);stroke-width:1}
.curve{fill:none;stroke:var(--c);stroke-width:1.9;stroke-linejoin:round}
.dashed{stroke-dasharray:5 3}
.dot{fill:var(--c);stroke:var(--card);stroke-width:1.2}
.ring{fill:none;stroke:var(--c);stroke-width:1.9}
.leader{stroke:var(--faint);stroke-width:.8}
.gain{fill:#2f7df0}
.loss{fill:#e0562c}
.cell{fill:var(--cell)}
.right{fill:var(--right)}
.wrong{fill:var(--wrong)}
.pixelated{image-rendering:pixelated}
.framed{display:grid;grid-template-columns:20px 1fr;max-width:460px;font-size:12.5px;color:var(--soft)}
.framed span:first-child{grid-column:2}
.framed span:nth-child(2){writing-mode:vertical-rl;transform:rotate(180deg);text-align:center}
.framed img{width:100%;aspect-ratio:1;background:var(--cell);border:1px solid var(--line);border-radius:4px}
.thumbnails{display:grid;grid-template-columns:repeat(auto-fill,minmax(164px,1fr));gap:14px;margin:0;padding:0;
list-style:none}
.thumbnails.wide{grid-template-columns:repeat(auto-fill,minmax(205px,1fr))}
.difference{border:1px solid var(--line);border-radius:10px;padding:10px;min-width:0}
.thumbnail,.blank{display:block;width:100%;aspect-ratio:1;object-fit:contain;border-radius:6px;background:#000}
.blank{display:grid;place-items:center;background:var(--cell);color:var(--faint);font-size:12.5px}
.difference p{display:flex;justify-content:space-between;gap:8px;margin:8px 0 4px;font-size:14px}
.difference ul{margin:0;padding:0;list-style:none;font-size:13px}
.difference ul li{display:flex;align-items:center}
.difference .swatch{flex:none}
.who,.difference li b:first-of-type{min-width:0;overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
.who{flex:1 1 auto;color:var(--soft)}
.difference li .who{flex:1 0 62px;max-width:60%;margin-right:6px}
.difference p b{color:var(--ink)}
.difference small{white-space:nowrap}
b.good{color:var(--good)}
b.bad{color:var(--bad)}
.pill{display:inline-block;padding:1px 9px;border-radius:99px;font-size:12.5px;font-weight:600;
background:var(--cell);color:var(--soft)}
.pill.good{background:var(--goodbg);color:var(--good)}
.pill.bad{background:var(--badbg);color:var(--bad)}
.pill.fair{background:var(--fairbg);color:var(--fair)}
details{margin-top:16px}
section>h2+details{margin-top:0}
summary{cursor:pointer;font-weight:600;font-size:14.5px}
details[open]>summary{margin-bottom:12px}
dl{display:grid;grid-template-columns:repeat(auto-fill,minmax(210px,1fr));gap:10px 24px;margin:0}
dt{color:var(--soft);font-size:12.5px}
dd{margin:0;overflow-wrap:anywhere}
pre{margin:0;padding:14px 16px;background:var(--cell);border-radius:10px;overflow:auto;max-height:560px;
font:12.5px/1.5 ui-monospace,"SF Mono",Menlo,Consolas,"DejaVu Sans Mono",monospace}
@media(max-width:640px){header,main,footer{padding-left:14px;padding-right:14px}header{padding-top:26px}
.card{padding:17px 15px;border-radius:12px}.scroll{margin:0 -15px;padding:0 15px}
.tiles{grid-template-columns:repeat(auto-fit,minmax(140px,1fr))}.tile{padding:11px 12px}
.tile strong{font-size:19px}.thumbnails{grid-template-columns:repeat(auto-fill,minmax(118px,1fr))}
table{width:auto;min-width:100%}.chart:not(.matrix) .tick,.chart .name{font-size:13px}}
@media print{nav{display:none}.card,.tile{break-inside:avoid}body{background:none}}
"""
