"""A recipe's warm-up and milestones in a training that is shorter than the recipe's."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from bnn_itrd.config.train import scaled_milestones
from bnn_itrd.words import counted

__all__ = ["shorten_schedules", "too_long"]

_TRAININGS = ("teacher_train", "train")


def too_long(tree: Mapping[str, Any]) -> list[str]:
    """Returns the fields that do not fit into the epochs of their training; tree: the groups of fields.

    >>> train = {"epochs": 2, "warmup_epochs": 2.0, "schedule": "cosine", "milestones": (150,)}
    >>> too_long({"teacher_train": train, "train": {**train, "epochs": 5}, "scheme": {"first_stage_epochs": 0}})
    ['teacher_train.warmup_epochs']
    """
    fields = []
    for where in _TRAININGS:
        train = tree[where]
        if train["warmup_epochs"] is not None and train["warmup_epochs"] >= _shortest(tree, where):
            fields.append(f"{where}.warmup_epochs")
        if train["schedule"] == "step" and max(train["milestones"], default=0) >= train["epochs"]:
            fields.append(f"{where}.milestones")
    return fields


def shorten_schedules(
    tree: dict[str, Any], recipe: Mapping[str, Any], given: Collection[str], say: Callable[[str], None]
) -> None:
    """Shortens the fields that are `too_long` for the epochs the user asked for, in proportion to the recipe's epochs.

    tree: all groups of fields as resolved, changed in place; recipe: the same without what the user gave, whose names
    are `given` (``train.epochs``). What he gave himself stays, and so does what is too long in the recipe already: it
    is refused when the configuration is made. `say` is told each change in a line.
    """
    for field in too_long(tree):
        where, _, name = field.partition(".")
        train, value = tree[where], tree[where][name]
        if name == "warmup_epochs":
            last, length, of = value, _shortest(tree, where), _shortest(recipe, where)
        else:
            last, length, of = max(value), train["epochs"], recipe[where]["epochs"]
        if field in given or length < 1 or last >= of:
            continue
        scaled = round(value * length / of, 2) if name == "warmup_epochs" else scaled_milestones(value, length, of)
        train[name] = scaled
        say(f"{field}: the recipe's {_text(value)} of {counted(of, 'epoch')}, shortened to {_text(scaled)} of {length}")


def _shortest(tree: Mapping[str, Any], where: str) -> int:
    """The epochs of the training; of the students' two stages, the fewer: they have one warm-up."""
    first: int = tree["scheme"]["first_stage_epochs"] if where == "train" else 0
    epochs: int = tree[where]["epochs"]
    return min(epochs, first) if first > 0 else epochs


def _text(value: float | tuple[int, ...]) -> str:
    return f"{value:g}" if isinstance(value, (int, float)) else f"[{', '.join(map(str, value))}]"
