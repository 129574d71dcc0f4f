"""A view of a comparison for the sections of the report, with defaults for missing parts."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from bnn_itrd.distillers.methods import METHODS
from bnn_itrd.plots import colour_index, colour_repeats, model_name, number
from bnn_itrd.report.markup import colour_square

__all__ = ["View", "model_top1", "points_above", "size_ratio"]


@dataclass(frozen=True)
class View:
    """A comparison in which missing parts are empty; folder: the folder of the page."""

    raw: dict[str, Any]
    models: list[dict[str, Any]]
    classes: list[str]
    images: int | None
    folder: Path = Path()

    @classmethod
    def of(cls, comparison: dict[str, Any], folder: Path = Path()) -> View:
        models = comparison.get("models")
        if not isinstance(models, list) or not all(isinstance(model, dict) for model in models):
            raise ValueError(f'comparison["models"] must be a list of dicts, got {models!r:.80}')
        if comparison.get("format", 1) != 1:
            raise ValueError(f'comparison["format"] must be 1, got {comparison["format"]!r}')
        dataset = comparison.get("dataset") or {}
        images = number(dataset.get("test"))
        names = [str(name) for name in dataset.get("classes") or []]
        return cls(comparison, models, names, int(images) if images else None, folder)

    def teacher(self, model: dict[str, Any]) -> dict[str, Any] | None:
        """Returns the model that `reference` names, or else the comparison's teacher; None for a teacher itself."""
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
        """The students, binary ones first, then by top-1."""
        found = [model for model in self.models if self.teacher(model) is not None]
        return sorted(found, key=lambda model: (not model.get("binary"), -(model_top1(model) or 0.0)))

    @property
    def best(self) -> dict[str, Any] | None:
        """The student with the highest top-1, binary ones first; without students, the first model."""
        return next(iter(self.students or self.models), None)

    def place(self, model: dict[str, Any]) -> int:
        return next(i for i, other in enumerate(self.models) if other is model)

    def colour(self, model: dict[str, Any]) -> str:
        return f"var(--s{colour_index(self.place(model))})"

    def kind(self, model: dict[str, Any]) -> str:
        """Returns the kind of a model: "full-precision teacher", "distilled (ITRD)"; "" if it is not recorded."""
        if self.teacher(model) is None and not model.get("binary"):
            return "full-precision teacher" if model.get("method") == "teacher" else ""
        config = self.raw.get("config") or {}
        learns = (config.get("students") or {}).get(model.get("name")) or config.get("distill")
        if not isinstance(learns, dict):
            return ""
        names = [_method(str(name)) for name, options in learns.items() if name != "ce" and options is not None]
        return f"distilled ({', '.join(names)})" if names else "learned without a teacher"

    def label(self, index: Any) -> str:
        """Returns the name of a class from its index."""
        if isinstance(index, int) and 0 <= index < len(self.classes):
            return self.classes[index]
        return "\u2014" if index is None else str(index)

    def named(self, model: dict[str, Any]) -> str:
        """Returns a model's name with its colour and its kind, as HTML."""
        kind = self.kind(model)
        return self.swatch(model) + (f'<i class="kind">{escape(kind)}</i>' if kind else "")

    def swatch(self, model: dict[str, Any]) -> str:
        """Returns a model's name with its colour, as HTML."""
        # A repeated colour has dashed lines in charts, and a hollow square here.
        return colour_square(self.colour(model), hollow=colour_repeats(self.place(model))) + escape(model_name(model))


def _method(name: str) -> str:
    """Returns a distiller's name as its paper writes it; a user's own distiller keeps its name."""
    return METHODS[name].__name__.removesuffix("Config") if name in METHODS else name


def model_top1(model: dict[str, Any]) -> float | None:
    """Returns a model's top-1 after the last epoch, or else of the best."""
    last = number(model.get("top1_last"))
    return number(model.get("top1_best")) if last is None else last


def points_above(model: dict[str, Any], teacher: dict[str, Any] | None) -> float | None:
    """Returns the difference of a model's top-1 to the teacher's, in points."""
    mine, theirs = model_top1(model), None if teacher is None else model_top1(teacher)
    return None if mine is None or theirs is None else mine - theirs


def size_ratio(teacher: dict[str, Any], model: dict[str, Any]) -> float | None:
    """Returns the teacher's file size divided by the model's."""
    big, small = number(teacher.get("bytes")), number(model.get("bytes"))
    return big / small if big and small else None
