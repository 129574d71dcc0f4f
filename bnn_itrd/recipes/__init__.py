"""Recipes, nested fields of `RunConfig` by name or path: YAML files, and the table of `pairs`."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from bnn_itrd.errors import UserError, unknown
from bnn_itrd.recipes.pairs import PAIRS
from bnn_itrd.yaml_files import read_yaml

__all__ = ["describe", "names", "read"]

_FOLDER = Path(__file__).parent


def names() -> list[str]:
    """The recipes that come with the package."""
    return sorted([*(path.stem for path in _FOLDER.glob("*.yaml")), *PAIRS])


def describe(name: str) -> str:
    """What a recipe is for: of a file, its first comment line."""
    if name in PAIRS:
        return PAIRS[name][0]
    first = (_FOLDER / f"{name}.yaml").read_text().splitlines()[0]
    return first.removeprefix("#").strip()


def read(name: str) -> dict[str, Any]:
    """The nested dict of a recipe: one of `names`, or the path of a .yaml file.

    Raises UserError: unknown name, unreadable file, a file that is no mapping.
    """
    if name in PAIRS:
        return copy.deepcopy(PAIRS[name][1])
    if name in names():
        path = _FOLDER / f"{name}.yaml"
    elif name.endswith((".yaml", ".yml")) or "/" in name:
        path = Path(name)
        if not path.is_file():
            raise UserError(f"no recipe file {path}")
    else:
        raise unknown("recipe", name, names())
    tree = read_yaml(path)
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UserError(f"{path} must hold fields (data: ..., train: ...), got {type(tree).__name__}")
    return tree
