"""Functions that fit a recipe's warm-up and milestones into a training of fewer epochs than the recipe's."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from bnn_itrd.config.train import scaled_milestones
from bnn_itrd.words import counted

__all__ = ["shorten_schedules", "too_long"]

_TRAININGS = ("teacher_train", "train")


def too_long(tree: Mapping[str, Any]) -> list[str]:
    """Returns the warm-ups and milestones that are longer than their training; tree: the groups of fields.

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

    tree: all groups of fields, changed in place; recipe: the same groups without the fields that the user gave, whose
    names are `given` (``train.epochs``). A field that the user gave is not changed, nor is one that is too long in the
    recipe already: the configuration refuses those later. say: a function that is called with a line per change.
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
    """Returns the epochs of a training; for students with two stages those of the shorter, since both warm up alike."""
    first: int = tree["scheme"]["first_stage_epochs"] if where == "train" else 0
    epochs: int = tree[where]["epochs"]
    return min(epochs, first) if first > 0 else epochs


def _text(value: float | tuple[int, ...]) -> str:
    return f"{value:g}" if isinstance(value, (int, float)) else f"[{', '.join(map(str, value))}]"
