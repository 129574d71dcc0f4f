"""Functions that list and read recipes, which are nested dicts with all settings of an experiment.

A recipe is a YAML file of this folder or of the user's, or an entry in the tables of `pairs`, `transfer` and
`transformers`, which make many similar ones.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bnn_itrd.errors import UserError, unknown
from bnn_itrd.recipes.pairs import PAIRS
from bnn_itrd.recipes.transfer import TRANSFER
from bnn_itrd.recipes.transformers import TRANSFORMERS
from bnn_itrd.yaml_files import read_yaml

__all__ = ["default_folder", "describe", "names", "read"]

_FOLDER = Path(__file__).parent
# Name -> (what it is for, its fields).
_TABLES = PAIRS | TRANSFER | TRANSFORMERS


def names() -> list[str]:
    """Returns the names of the recipes that come with the package, sorted.

    >>> "digits" in names()
    True
    """
    return sorted([*(path.stem for path in _FOLDER.glob("*.yaml")), *_TABLES])


def describe(name: str) -> str:
    """Returns what one of the package's recipes is for, in one line: the first line of its file, without the ``#``.

    >>> describe("cifar10")
    "CIFAR-10 with the papers' ResNet-18, shortened to 30 epochs: for a GPU (hours on a CPU)."
    """
    if name in _TABLES:
        return _TABLES[name][0]
    first = (_FOLDER / f"{name}.yaml").read_text().splitlines()[0]
    return first.removeprefix("#").strip()


def read(name: str) -> dict[str, Any]:
    """Returns the nested dict of a recipe; name: one of `names`, or the path of a .yaml file.

    The config.yaml of a run can be read as a recipe too. It has all fields, and a key `recipe` with the name of the
    run's recipe. Raises UserError if the name is unknown, the file cannot be read or holds no fields, or it is the
    config.yaml of a single network.

    >>> read("digits")["network"]
    {'name': 'resnet20'}
    """
    if name in _TABLES:
        return copy.deepcopy(_TABLES[name][1])
    if name in names():
        path = _FOLDER / f"{name}.yaml"
    elif name.endswith((".yaml", ".yml")) or "/" in name:
        path = Path(name)
        if not path.is_file():
            raise UserError(f"no recipe file {path}: bnn-itrd recipes lists the package's recipes")
    else:
        raise unknown("recipe", name, names())
    tree = read_yaml(path)
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UserError(f"{path} must hold fields (data: ..., train: ...), got {type(tree).__name__}")
    if {"name", "distill"} <= tree.keys():
        run = path.parent.parent / path.name
        raise UserError(f"{path} is the configuration of one network: give that of the whole run, {run}")
    return tree


def default_folder(name: str, tree: Mapping[str, Any]) -> Path:
    """Returns the folder of a run if the user names none: runs/RECIPE or, for the config.yaml of a run, its folder.

    name: the recipe's name or path. tree: its content, in which the key `recipe` shows that it is a run's config.yaml.

    >>> default_folder("digits", {}), default_folder("runs/mine/config.yaml", {"recipe": "digits"})
    (PosixPath('runs/digits'), PosixPath('runs/mine'))
    """
    return Path(name).parent if "recipe" in tree else Path("runs") / Path(name).stem
