"""From a recipe and the command line's fields to a `RunConfig`: jsonargparse over the dataclasses of `config`."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from jsonargparse import ArgumentParser

from bnn_itrd.config.data import DataConfig
from bnn_itrd.config.distillers import METHODS, DistillConfig
from bnn_itrd.config.run import RunConfig
from bnn_itrd.config.trees import flatten, to_dict
from bnn_itrd.errors import UserError, unknown

__all__ = ["data_config", "parse", "parser", "run_config"]


def parser(prog: str, description: str) -> ArgumentParser:
    """An argument parser that raises UserError instead of leaving the program."""
    # Its --print_config would leave the students out; config.yaml in the run's folder has everything.
    return ArgumentParser(
        prog=prog, description=description, exit_on_error=False, allow_abbrev=False, print_config=None
    )


def parse(p: ArgumentParser, argv: Sequence[str]) -> Any:
    """The parsed namespace. Raises UserError on what does not fit."""
    try:
        return p.parse_args(list(argv))
    except Exception as error:
        # jsonargparse wraps what our own checks raise; the message is what the user needs.
        raise UserError(_plain(str(error))) from error


# Of a field that may be left out, "int | None": jsonargparse tells what each of the two expects.
_OPTIONAL_ERROR = re.compile(
    r'Parser key "([^"]+)":.*Expected a <class \'(?!NoneType)(\w+)\'>.*Given value: (.*)', re.DOTALL
)
_TYPE_ERROR = re.compile(r'Parser key "([^"]+)":\s+Expected an? (.+?)\. Got value: (.*)', re.DOTALL)


def _plain(message: str) -> str:
    """jsonargparse's type error as this project words it: ``train.epochs must be int, got many``."""
    if (optional := _OPTIONAL_ERROR.search(message)) is not None:
        field, kind, value = (part.strip() for part in optional.groups())
        return f"{field} must be {kind} or null, got {value}"
    found = _TYPE_ERROR.search(message)
    if found is None:
        return message.strip()
    field, kind, value = (part.strip() for part in found.groups())
    kind = re.sub(r"<class '([^']+)'>", r"\1", kind).replace("typing.Literal", "one of ")
    return f"{field} must be {kind}, got {value}"


def _set(tree: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        below = tree.get(parent)
        if not isinstance(below, dict):
            below = tree[parent] = {}
        tree = below
    tree[last] = value


def _fields() -> list[str]:
    plain = flatten(to_dict(RunConfig(students={})))
    return [name for name in plain if name != "students"]


def _student_fields() -> list[str]:
    parts = [f"{part}.{name}" for part, kind in METHODS.items() for name in to_dict(kind())]
    return ["ce", *METHODS, *parts]


def _check_known(tree: Mapping[str, Any], where: str) -> None:
    """Raises UserError on a field that does not exist, with the nearest that does."""
    known = _fields()
    groups = {name.split(".")[0] for name in known if "." in name} | {"students"}
    for key, value in flatten({k: v for k, v in tree.items() if k != "students"}).items():
        if key in groups and (value is None or value == {}):
            continue
        if key not in known:
            raise unknown(f"field in {where}", key, known)


def _split_tokens(argv: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Tokens for the parser, and (key, value) pairs of ``--students.NAME.FIELD VALUE``."""
    rest: list[str] = []
    pairs: list[tuple[str, str]] = []
    tokens = list(argv)
    while tokens:
        token = tokens.pop(0)
        if token == "--students" or token.startswith(("--students.", "--students=")):
            key, equals, value = token[2:].partition("=")
            if not equals:
                if not tokens:
                    raise UserError(f"{token} needs a value")
                value = tokens.pop(0)
            pairs.append((key, value))
        else:
            rest.append(token)
    return rest, pairs


def _seeds(tokens: Sequence[str]) -> list[str]:
    """``--seed N`` is short for the seeds of the teacher's and of the students' training."""
    result: list[str] = []
    for i, token in enumerate(tokens):
        if i and tokens[i - 1] == "--seed":
            continue
        value = token.removeprefix("--seed=") if token.startswith("--seed=") else "".join(tokens[i + 1 : i + 2])
        if token == "--seed" or token.startswith("--seed="):
            result += [f"--train.seed={value}", f"--teacher_train.seed={value}"]
        else:
            result.append(token)
    return result


def _check_tokens(argv: Sequence[str], extra: Sequence[str]) -> None:
    known = _fields()
    for token in argv:
        if not token.startswith("--"):
            continue
        key = token[2:].partition("=")[0]
        groups = {name.split(".")[0] for name in known if "." in name}
        if key not in known and key not in extra and key not in groups:
            raise unknown(
                "option", f"--{key}", [f"--{name}" for name in [*known, "students.NAME.FIELD", "seed", *extra]]
            )


def _students(tree: Any) -> dict[str, DistillConfig]:
    if not isinstance(tree, Mapping):
        raise UserError(f"students must map names to what they learn from, got {tree!r}")
    result = {}
    for name, fields in tree.items():
        fields = {} if fields is None else fields
        where = f"students.{name}"
        if not isinstance(fields, Mapping):
            raise UserError(f"{where} must hold fields (ce, itrd, kd, ...), got {fields!r}")
        given = {k: v for k, v in fields.items() if v is not None}
        for key, value in flatten(given).items():
            if key in METHODS and not isinstance(value, Mapping):
                raise UserError(f"{where}.{key} must hold fields ({', '.join(to_dict(METHODS[key]()))}), got {value!r}")
            if key not in _student_fields():
                raise unknown(f"field of {where}", key, _student_fields())
        p = parser("students", "")
        p.add_argument("--ce", type=float, default=DistillConfig().ce)
        for part in set(METHODS) & set(given):
            p.add_class_arguments(METHODS[part], part)
        try:
            parsed = p.instantiate(p.parse_object(dict(given)))
            parts = {part: getattr(parsed, part) for part in METHODS if part in given}
            result[str(name)] = DistillConfig(ce=parsed.ce, **parts)
        except Exception as error:
            raise UserError(f"{where}: {_plain(str(error))}") from error
    return result


def _methods_help() -> str:
    """Every distiller with its fields and their defaults."""
    lines = []
    for name, kind in METHODS.items():
        fields = ", ".join(f"{field} {value}" for field, value in to_dict(kind()).items())
        lines.append(f"{name}: {str(kind.__doc__).partition(chr(10))[0]} [{fields}]")
    return "; ".join(lines)


def run_config(
    command: str, description: str, recipe: dict[str, Any], argv: Sequence[str], *, extra: dict[str, str]
) -> tuple[RunConfig, dict[str, Any]]:
    """(configuration, values of the command's own options) from a recipe's tree and the fields given after it.

    extra: the command's own options, name -> help. Raises UserError: unknown field (with the nearest), wrong type,
    value out of range.
    """
    if "task" in recipe:
        raise UserError(f"bnn-itrd {command} takes recipes of images; run and train take this one ({recipe['task']})")
    _check_known(recipe, "the recipe")
    wants_help = any(token in ("-h", "--help") for token in argv)
    rest, pairs = _split_tokens([t for t in argv if t not in ("-h", "--help")])
    rest = _seeds(rest)
    _check_tokens(rest, list(extra))
    tree = dict(recipe)
    students: Any = tree.pop("students", to_dict(RunConfig())["students"])
    holder = {"students": json.loads(json.dumps(students))}
    for key, value in pairs:
        try:
            _set(holder, key, yaml.safe_load(value))
        except yaml.YAMLError as error:
            raise UserError(f"--{key}: {value!r} is not YAML: {error}") from error

    p = parser(f"bnn-itrd {command}", description)
    p.usage = f"bnn-itrd {command} RECIPE [--out DIR] [--FIELD VALUE ...]"
    p.add_argument("--config", action="config", help=argparse.SUPPRESS)  # how the recipe reaches the parser
    for name, text in extra.items():
        p.add_argument(f"--{name}", type=str, default=None, help=text)
    p.add_class_arguments(RunConfig, None, skip={"students"})
    if wants_help:
        p.epilog = (
            "--seed N sets teacher_train.seed and train.seed. "
            "Students are fields too: --students.NAME.ce 1, --students.NAME.kd.tau 4, "
            "--students.NAME.itrd.beta_mi 1, or --students '{recu: {}, mine: {itrd: {alpha: 1.5}}}'. "
            f"What a student can learn from, with the defaults: {_methods_help()}"
        )
        p.print_help()
        raise SystemExit(0)
    parsed = parse(p, [*(["--config", json.dumps(tree)] if tree else []), *rest])
    try:
        made = p.instantiate(parsed)
        fields = {k: getattr(made, k) for k in RunConfig.__dataclass_fields__ if k != "students"}
        fields["scheme"] = made.scheme.resolved()
        config = RunConfig(students=_students(holder["students"]), **fields)
    except UserError:
        raise
    except Exception as error:
        raise UserError(_plain(str(error))) from error
    return config, {name: getattr(made, name) for name in extra}


def data_config(p: ArgumentParser, argv: Sequence[str]) -> tuple[Any, dict[str, Any]]:
    """Parses a command that takes ``--data.*`` fields; returns the namespace and the fields that were given.

    Raises UserError on an unknown field, and on `data.unlabelled`, with which these commands would read no label.
    """
    known = [name for name in _fields() if name.startswith("data.")]
    given: dict[str, Any] = {}
    rest: list[str] = []
    tokens = list(argv)
    while tokens:
        token = tokens.pop(0)
        key, equals, value = token[2:].partition("=") if token.startswith("--data") else ("", "", "")
        if not key:
            rest.append(token)
            continue
        if not equals:
            if not tokens:
                raise UserError(f"{token} needs a value")
            value = tokens.pop(0)
        # `--data cifar10` is short for `--data.name cifar10`.
        name = "data.name" if key == "data" else key
        if name not in known:
            raise unknown("option", f"--{key}", [f"--{n}" for n in known])
        _set(given, name, value)
    checker = parser("data", "")
    checker.add_class_arguments(DataConfig, "data")
    flat = flatten(given)
    typed = parse(checker, [f"--{k}={v}" for k, v in flat.items()])
    values = {k.removeprefix("data."): getattr(typed.data, k.removeprefix("data.")) for k in flat}
    if values.get("unlabelled"):
        raise UserError("data.unlabelled is for training: this command reads the labels of all its images")
    return parse(p, rest), values
