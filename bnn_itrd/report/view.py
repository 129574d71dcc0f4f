"""`View`, through which the sections of the report read the content of comparison.json."""

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
    """The content of comparison.json for the sections of the report; missing parts are empty.

    Args:
        raw: the whole content
        models: its entries for the networks, the teacher and the students
        classes: names of the classes
        images: number of test images, or None
        folder: folder of the report, to which the paths of exported files are relative
    """

    raw: dict[str, Any]
    models: list[dict[str, Any]]
    classes: list[str]
    images: int | None
    folder: Path = Path()

    @classmethod
    def of(cls, comparison: dict[str, Any], folder: Path = Path()) -> View:
        """Returns a `View` of the content of comparison.json; `folder` is the report's folder.

        Raises ValueError unless the content has a list of models and format 1.
        """
        models = comparison.get("models")
        if not isinstance(models, list) or not all(isinstance(model, dict) for model in models):
            raise ValueError(f'"models" of the comparison must be a list of objects, got {models!r:.80}')
        if comparison.get("format", 1) != 1:
            raise ValueError(f'"format" of the comparison must be 1, got {comparison["format"]!r}')
        dataset = comparison.get("dataset") or {}
        images = number(dataset.get("test"))
        names = [str(name) for name in dataset.get("classes") or []]
        return cls(comparison, models, names, int(images) if images else None, folder)

    def teacher(self, model: dict[str, Any]) -> dict[str, Any] | None:
        """Returns the teacher with which a network is compared, or None if the network is itself a teacher.

        It is the network that the entry names as its ``reference``, or else the comparison's first teacher.
        """
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
        """The students: binary ones first, and among them the one with the highest top-1 first."""
        found = [model for model in self.models if self.teacher(model) is not None]
        return sorted(found, key=lambda model: (not model.get("binary"), -(model_top1(model) or 0.0)))

    @property
    def best(self) -> dict[str, Any] | None:
        """The student with the highest top-1, binary ones first; without students, the first model."""
        return next(iter(self.students or self.models), None)

    def place(self, model: dict[str, Any]) -> int:
        """Returns the index of a network in the comparison, which decides its colour."""
        return next(i for i, other in enumerate(self.models) if other is model)

    def colour(self, model: dict[str, Any]) -> str:
        """Returns the CSS colour of a network, a variable of the style sheet."""
        return f"var(--s{colour_index(self.place(model))})"

    def kind(self, model: dict[str, Any]) -> str:
        """Returns how a network was trained: "full-precision teacher", "distilled (ITRD)", "learned without a teacher".

        It is "" if that is not recorded.
        """
        if self.teacher(model) is None and not model.get("binary"):
            return "full-precision teacher" if model.get("method") == "teacher" else ""
        config = self.raw.get("config") or {}
        learns = (config.get("students") or {}).get(model.get("name")) or config.get("distill")
        if not isinstance(learns, dict):
            return ""
        names = [_method(str(name)) for name, options in learns.items() if name != "ce" and options is not None]
        return f"distilled ({', '.join(names)})" if names else "learned without a teacher"

    def label(self, index: Any) -> str:
        """Returns the name of the class with this index; the index itself if it has no name, and a dash for None."""
        if isinstance(index, int) and 0 <= index < len(self.classes):
            return self.classes[index]
        return "\u2014" if index is None else str(index)

    def named(self, model: dict[str, Any]) -> str:
        """Returns a network's name as HTML, after a square of its colour and followed by how it was trained."""
        kind = self.kind(model)
        return self.swatch(model) + (f'<i class="kind">{escape(kind)}</i>' if kind else "")

    def swatch(self, model: dict[str, Any]) -> str:
        """Returns a network's name as HTML, after a square of its colour."""
        # If an earlier network has the same colour, this one's lines are dashed and its square is hollow.
        return colour_square(self.colour(model), hollow=colour_repeats(self.place(model))) + escape(model_name(model))


def _method(name: str) -> str:
    """Returns the name of a distillation method as its paper writes it ("ITRD"); a user's own loss keeps its name."""
    return METHODS[name].__name__.removesuffix("Config") if name in METHODS else name


def model_top1(model: dict[str, Any]) -> float | None:
    """Returns a network's top-1 accuracy after the last epoch, or, if that is missing, of the best epoch; or None.

    >>> model_top1({"top1_last": None, "top1_best": 97.5})
    97.5
    """
    last = number(model.get("top1_last"))
    return number(model.get("top1_best")) if last is None else last


def points_above(model: dict[str, Any], teacher: dict[str, Any] | None) -> float | None:
    """Returns by how many percentage points a network's top-1 is above its teacher's; None if one is not known.

    >>> points_above({"top1_last": 97.0}, {"top1_last": 98.5})
    -1.5
    """
    mine, theirs = model_top1(model), None if teacher is None else model_top1(teacher)
    return None if mine is None or theirs is None else mine - theirs


def size_ratio(teacher: dict[str, Any], model: dict[str, Any]) -> float | None:
    """Returns the size of the teacher's exported file divided by the network's; None if one is not known.

    >>> size_ratio({"bytes": 1000}, {"bytes": 40})
    25.0
    """
    big, small = number(teacher.get("bytes")), number(model.get("bytes"))
    return big / small if big and small else None
