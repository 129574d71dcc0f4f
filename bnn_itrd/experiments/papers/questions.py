"""Functions that bring the configuration of a question-answering network into the form of an image network's.

The code that fills published tables works on that form.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from bnn_itrd import recipes
from bnn_itrd.nlp.options import squad_config

__all__ = ["SQUAD", "read_reader", "reader_tree", "teacher_of_readers", "wanted_reader"]

# The recipe for question answering on SQuAD.
SQUAD = "squad"
# The numbers of layers and of features of BERT-base; the papers' students are its first layers.
_LAYERS, _WIDTH = 12, 768


def reader_tree(saved: Mapping[str, Any], *, layers: int, width: int) -> dict[str, Any]:
    """Returns a question-answering network's configuration as a nested dict with the groups of `MemberConfig`.

    saved: the configuration as its config.yaml has it; layers, width: the numbers of layers and features of its BERT.
    The losses it learns from become the group `distill`.

    >>> reader_tree({"name": "t3", "data": {}, "train": {}, "student": {"layers": 3, "ce": 1.0}}, layers=3, width=768)[
    ...     "distill"
    ... ]
    {'ce': 1.0}
    """
    learns = saved.get("student") or {}
    network = {"name": f"bert-{layers}", "width": width, "random_init": bool(saved.get("random_init", False))}
    distill = {name: value for name, value in learns.items() if name != "layers"}
    return {**{key: saved[key] for key in ("name", "data", "train")}, "network": network, "distill": distill}


def read_reader(saved: Mapping[str, Any], folder: Path) -> dict[str, Any] | None:
    """Returns `reader_tree` of a question-answering network in a folder; None if the folder has no such network.

    saved: the content of its config.yaml. The size of its BERT is read from model/config.json, which transformers
    wrote.
    """
    if "network" in saved or not (isinstance(saved.get("student"), Mapping) or "random_init" in saved):
        return None
    bert = _json(folder / "model" / "config.json")
    layers, width = bert.get("num_hidden_layers"), bert.get("hidden_size")
    whole = all(isinstance(saved.get(key), dict) for key in ("data", "train")) and "name" in saved
    if not whole or not isinstance(layers, int) or not isinstance(width, int):
        return None
    return reader_tree(saved, layers=layers, width=width)


def teacher_of_readers(run: Path) -> str | None:
    """Returns the name of the teacher's network in a question-answering run's comparison.json; None without one."""
    found = _json(run / "comparison.json")
    models = found.get("models")
    first = models[0] if found.get("task") == SQUAD and isinstance(models, list) and models else {}
    return str(first["network"]) if isinstance(first, dict) and first.get("name") == "teacher" else None


def _json(path: Path) -> dict[str, Any]:
    """Returns the dict in a JSON file; {} if it cannot be read or holds something else."""
    try:
        tree = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return tree if isinstance(tree, dict) else {}


@cache
def _wanted(member: str, words: tuple[str, ...]) -> tuple[dict[str, Any], str | None]:
    """Does the work of `wanted_reader`; the result is cached."""
    config = squad_config("table", "", recipes.read(SQUAD), words, extra={})[0]
    learns = None if member == "teacher" else config.students[member]
    tree = reader_tree(config.identity(member), layers=_LAYERS if learns is None else learns.layers, width=_WIDTH)
    return tree, f"bert-{_LAYERS}" if learns is not None and learns.needs_teacher else None


def wanted_reader(member: str, words: Sequence[str]) -> tuple[dict[str, Any], str | None]:
    """Returns (`reader_tree` of a network of the recipe `squad`, the name of its teacher's network or None).

    member: the network's name in the recipe; words: command line arguments that replace fields of the recipe.
    """
    return _wanted(member, tuple(words))
