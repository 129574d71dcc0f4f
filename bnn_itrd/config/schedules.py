"""Functions that shorten a recipe's warm-up and milestones when the user asks for fewer epochs than the recipe has."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from bnn_itrd.config.train import scaled_milestones
from bnn_itrd.words import counted

__all__ = ["shorten_schedules", "too_long"]

_TRAININGS = ("teacher_train", "train")


def too_long(tree: Mapping[str, Any]) -> list[str]:
    """Returns the names of the warm-up and milestone fields that do not fit into their training's epochs.

    tree: nested dict of a configuration's fields.

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
    """Shortens warm-ups and milestones that are `too_long`, in proportion to the recipe's epochs.

    tree: nested dict of the configuration, which is changed in place. recipe: the same before the user's options were
    applied. given: names of the fields that the user gave (``train.epochs``). say: a function that is called with a
    line of text for each change.

    A field that the user gave stays as it is, and so does one that is too long in the recipe itself, because
    `RunConfig` refuses those later.
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
    """Returns the number of epochs into which the warm-up of a training must fit; where: the training's group.

    For students with two stages these are the epochs of the shorter stage, because both stages have the same warm-up.
    """
    first: int = tree["scheme"]["first_stage_epochs"] if where == "train" else 0
    epochs: int = tree[where]["epochs"]
    return min(epochs, first) if first > 0 else epochs


def _text(value: float | tuple[int, ...]) -> str:
    return f"{value:g}" if isinstance(value, (int, float)) else f"[{', '.join(map(str, value))}]"
