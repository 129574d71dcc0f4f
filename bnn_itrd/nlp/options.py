"""From a recipe of task `squad` and the command line's fields to a `SquadConfig`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from bnn_itrd.config.parse import parse, parser
from bnn_itrd.config.trees import flatten, to_dict
from bnn_itrd.errors import UserError, unknown
from bnn_itrd.nlp.config import LayerITRDConfig, LogitKDConfig, SquadConfig, StudentConfig

__all__ = ["squad_config"]

_PARTS = {"kd": LogitKDConfig, "itrd": LayerITRDConfig}


def squad_config(
    command: str, description: str, recipe: Mapping[str, Any], argv: Sequence[str], *, extra: Mapping[str, str]
) -> tuple[SquadConfig, dict[str, Any]]:
    """(configuration, values of the command's own options). extra: the command's own options, name -> help.

    Raises UserError: unknown field (with the nearest), wrong type, value out of range.
    """
    tree = {key: value for key, value in recipe.items() if key != "task"}
    given = tree.pop("students", to_dict(SquadConfig())["students"])
    known = [name for name in flatten(to_dict(SquadConfig(students={}))) if name != "students"]
    for key in flatten(tree):
        if key not in known:
            raise unknown("field in the recipe", key, [*known, "students"])
    rest, students = _split(argv, given, [*known, *extra])

    p = parser(f"bnn-itrd {command}", description)
    p.usage = f"bnn-itrd {command} RECIPE [--out DIR] [--FIELD VALUE ...]"
    p.add_argument("--config", action="config", help=argparse.SUPPRESS)  # how the recipe reaches the parser
    for name, text in extra.items():
        p.add_argument(f"--{name}", type=str, default=None, help=text)
    p.add_class_arguments(SquadConfig, None, skip={"students"})
    if any(token in ("-h", "--help") for token in argv):
        p.epilog = (
            "--seed N sets teacher_train.seed and train.seed. Students are fields too: --students.NAME.layers 3, "
            "--students.NAME.kd.tau 8, --students.NAME.itrd.beta_mi 1, or --students '{t3: {layers: 3, kd: {}}}'."
        )
        p.print_help()
        raise SystemExit(0)
    made = p.instantiate(parse(p, [*(["--config", json.dumps(tree)] if tree else []), *rest]))
    fields = {name: getattr(made, name) for name in SquadConfig.__dataclass_fields__ if name != "students"}
    config = SquadConfig(students=_students(students), **fields)
    return config, {name: getattr(made, name) for name in extra}


def _split(argv: Sequence[str], students: Any, known: Sequence[str]) -> tuple[list[str], Any]:
    """(tokens for the parser, the students with what --students[.NAME.FIELD] says). UserError: unknown option."""
    holder: dict[str, Any] = {"students": json.loads(json.dumps(students))}
    rest: list[str] = []
    tokens = list(argv)
    while tokens:
        token = tokens.pop(0)
        key, equals, value = token.removeprefix("--").partition("=")
        if token in ("-h", "--help"):
            continue
        if not token.startswith("--"):
            raise UserError(f"unexpected {token!r}: fields are given as --FIELD VALUE")
        if key not in known and key != "seed" and key.split(".")[0] != "students":
            raise unknown("option", f"--{key}", [f"--{name}" for name in [*known, "students.NAME.FIELD", "seed"]])
        if not equals:
            if not tokens:
                raise UserError(f"{token} needs a value")
            value = tokens.pop(0)
        if key.split(".")[0] == "students":
            try:
                _set(holder, key.split("."), yaml.safe_load(value))
            except yaml.YAMLError as error:
                raise UserError(f"--{key}: {value!r} is not YAML: {error}") from error
        elif key == "seed":
            rest += [f"--train.seed={value}", f"--teacher_train.seed={value}"]
        else:
            rest.append(f"--{key}={value}")
    return rest, holder["students"]


def _set(tree: dict[str, Any], keys: Sequence[str], value: Any) -> None:
    *parents, last = keys
    for parent in parents:
        if not isinstance(tree.get(parent), dict):
            tree[parent] = {}
        tree = tree[parent]
    tree[last] = value


def _students(tree: Any) -> dict[str, StudentConfig]:
    if not isinstance(tree, Mapping):
        raise UserError(f"students must map names to layers and what they learn from, got {tree!r}")
    known = [*flatten(to_dict(StudentConfig(kd=LogitKDConfig(), itrd=LayerITRDConfig()))), *_PARTS]
    result = {}
    for name, fields in tree.items():
        where = f"students.{name}"
        fields = {} if fields is None else fields
        if not isinstance(fields, Mapping):
            raise UserError(f"{where} must hold fields (layers, ce, kd, itrd), got {fields!r}")
        given = {key: value for key, value in fields.items() if value is not None}
        for key, value in flatten(given).items():
            if key not in known or (key in _PARTS and not isinstance(value, Mapping)):
                raise unknown(f"field of {where}", key, known)
        p = parser("students", "")
        p.add_argument("--layers", type=int, default=StudentConfig().layers)
        p.add_argument("--ce", type=float, default=StudentConfig().ce)
        parts = [part for part in _PARTS if part in given]
        for part in parts:
            p.add_class_arguments(_PARTS[part], part)
        try:
            parsed = p.instantiate(p.parse_object(dict(given)))
            result[str(name)] = StudentConfig(
                layers=parsed.layers, ce=parsed.ce, **{part: getattr(parsed, part) for part in parts}
            )
        except Exception as error:  # jsonargparse wraps what our own checks raise
            raise UserError(f"{where}: {str(error).strip()}") from error
    return result
