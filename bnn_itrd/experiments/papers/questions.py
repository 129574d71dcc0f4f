"""The networks of question answering as the tables of papers read them: in the form of an image network's record."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from bnn_itrd import recipes
from bnn_itrd.nlp.options import squad_config

__all__ = ["SQUAD", "read_reader", "reader_tree", "teacher_of_readers", "wanted_reader"]

# The recipe of the table.
SQUAD = "squad"
# BERT-base, from which the papers' students are cut.
_LAYERS, _WIDTH = 12, 768


def reader_tree(saved: Mapping[str, Any], *, layers: int, width: int) -> dict[str, Any]:
    """Returns the configuration of a member (`SquadConfig.identity`) as a tree with the groups of `MemberConfig`.

    layers, width: of its BERT. What it learns from is `distill`; weights that were drawn are part of the network.

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
    """Returns the tree of a member's config.yaml, with its size from the folder that transformers reads.

    None if the config.yaml is not one of question answering, or there is no such folder.
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
    """Returns the teacher's network in the comparison.json of a whole run; None if there is none."""
    found = _json(run / "comparison.json")
    models = found.get("models")
    first = models[0] if found.get("task") == SQUAD and isinstance(models, list) and models else {}
    return str(first["network"]) if isinstance(first, dict) and first.get("name") == "teacher" else None


def _json(path: Path) -> dict[str, Any]:
    try:
        tree = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return tree if isinstance(tree, dict) else {}


@cache
def _wanted(member: str, words: tuple[str, ...]) -> tuple[dict[str, Any], str | None]:
    config = squad_config("table", "", recipes.read(SQUAD), words, extra={})[0]
    learns = None if member == "teacher" else config.students[member]
    tree = reader_tree(config.identity(member), layers=_LAYERS if learns is None else learns.layers, width=_WIDTH)
    return tree, f"bert-{_LAYERS}" if learns is not None and learns.needs_teacher else None


def wanted_reader(member: str, words: Sequence[str]) -> tuple[dict[str, Any], str | None]:
    """Returns (the tree of a member of the recipe `squad`, its teacher's network); words: fields as arguments."""
    return _wanted(member, tuple(words))
