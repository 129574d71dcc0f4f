"""Makes a `SquadConfig` from a question-answering recipe and the options on the command line."""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Mapping, Sequence
from typing import Any

from bnn_itrd.config.groups import make_groups
from bnn_itrd.config.help import all_pages, show_fields, wants_help
from bnn_itrd.config.parse import parse, parser
from bnn_itrd.config.run import check_student_name
from bnn_itrd.config.tokens import given_options, set_field
from bnn_itrd.config.trees import flatten, to_dict
from bnn_itrd.errors import UserError, unknown
from bnn_itrd.nlp.config import HiddenConfig, LayerITRDConfig, LogitKDConfig, SquadConfig, StudentConfig
from bnn_itrd.yaml_files import parse_yaml

__all__ = ["squad_config"]

_PARTS = {"kd": LogitKDConfig, "itrd": LayerITRDConfig, "hidden": HiddenConfig}


def squad_config(
    command: str, description: str, recipe: Mapping[str, Any], argv: Sequence[str], *, extra: Mapping[str, str]
) -> tuple[SquadConfig, dict[str, Any]]:
    """Returns the configuration of a run, and the values of the options that only this command has, such as --out.

    Args:
        command: run or train
        description: the command's description for its help page
        recipe: content of the recipe, whose fields the command line may change
        argv: options on the command line
        extra: the options that only this command has, name -> help text

    Raises UserError if a field is unknown, or if a value has the wrong type or is out of range.
    """
    tree = {key: value for key, value in recipe.items() if key not in ("task", "recipe")}
    given = tree.pop("students", to_dict(SquadConfig())["students"])
    known = [name for name in flatten(to_dict(SquadConfig(students={}))) if name != "students"]
    for key in flatten(tree):
        if key not in known:
            raise unknown("field in the recipe", key, [*known, "students"])

    p = parser(f"bnn-itrd {command}", description)
    p.usage = f"bnn-itrd {command} RECIPE [--out DIR] [--FIELD VALUE ...]"
    p.add_argument("--config", action="config", help=argparse.SUPPRESS)  # passes the recipe to the parser
    for name, text in extra.items():
        p.add_argument(f"--{name}", type=str, default=None, help=text)
    p.add_class_arguments(SquadConfig, None, skip={"students"})
    if wants_help(argv):
        epilog = (
            "--seed N sets teacher_train.seed and train.seed. Students are fields too: --students.NAME.layers 3, "
            "--students.NAME.kd.tau 8, --students.NAME.itrd.beta_mi 1, or --students '{t3: {layers: 3, kd: {}}}'."
        )
        show_fields(p, list(extra), ["help"], epilog=epilog, methods={}, whole=all_pages(argv))
    words, students, own = _own_fields(argv, given, known, extra)
    values = parse(p, [*(["--config", json.dumps(tree)] if tree else []), *words]).as_dict()
    return SquadConfig(students=_students(students), **make_groups(SquadConfig, values)), own


def _own_fields(
    argv: Sequence[str], students: Any, known: Sequence[str], extra: Mapping[str, str]
) -> tuple[list[str], Any, dict[str, Any]]:
    """Splits the options of the command line into those for the parser, fields of students, and the command's own.

    Returns the arguments for the parser, the recipe's students as changed by --students.NAME.FIELD, and the values of
    the options that only this command has (`extra`), by name. Raises UserError if an option is unknown.
    """
    holder: dict[str, Any] = {"students": copy.deepcopy(students)}
    words: list[str] = []
    own: dict[str, Any] = dict.fromkeys(extra)
    for option in given_options(argv):
        key = option.key
        if key not in [*known, *extra, "seed"] and key.split(".")[0] != "students":
            names = [*known, *extra, "students.NAME.FIELD", "seed"]
            raise unknown("option", f"--{key}", [f"--{name}" for name in names])
        value = option.value()
        if key in extra:
            own[key] = value
        elif key == "seed":
            words += [f"--train.seed={value}", f"--teacher_train.seed={value}"]
        elif key in known:
            words.append(f"--{key}={value}")
        else:
            set_field(holder, key, parse_yaml(value, where=f"--{key}: {value!r}"))
    return words, holder["students"], own


def _students(tree: Any) -> dict[str, StudentConfig]:
    """Returns the students of a recipe, name -> configuration. Raises UserError if a name, field or value is wrong."""
    if not isinstance(tree, Mapping):
        raise UserError(f"students must be names with fields, such as {{t3: {{layers: 3, kd: {{}}}}}}, got {tree!r}")
    known = [
        *flatten(to_dict(StudentConfig(kd=LogitKDConfig(), itrd=LayerITRDConfig(), hidden=HiddenConfig()))),
        *_PARTS,
    ]
    result = {}
    for name, fields in tree.items():
        check_student_name(name)
        where = f"students.{name}"
        fields = {} if fields is None else fields
        if not isinstance(fields, Mapping):
            raise UserError(f"{where} must have fields (layers, ce, kd, itrd, hidden), got {fields!r}")
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
        except Exception as error:  # jsonargparse turns the errors of the dataclasses into its own
            raise UserError(f"{where}: {str(error).strip()}") from error
    return result
