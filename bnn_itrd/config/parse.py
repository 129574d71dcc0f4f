"""Functions that make a `RunConfig` from a recipe and the command line; jsonargparse reads fields from dataclasses."""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Any

from jsonargparse import ArgumentParser

from bnn_itrd.config.addresses import is_address
from bnn_itrd.config.data import DataConfig
from bnn_itrd.config.distillers import DistillConfig
from bnn_itrd.config.groups import make_group, make_groups
from bnn_itrd.config.help import all_pages, option_names, options_of, show_data, show_fields, show_page, wants_help
from bnn_itrd.config.run import RunConfig, check_student_name
from bnn_itrd.config.schedules import shorten_schedules, too_long
from bnn_itrd.config.tokens import Given, given_options, set_field
from bnn_itrd.config.trees import flatten, to_dict
from bnn_itrd.distillers.methods import METHODS
from bnn_itrd.errors import FieldError, UserError, unknown
from bnn_itrd.yaml_files import parse_yaml

__all__ = ["data_config", "parse", "parser", "run_config"]


def parser(prog: str, description: str) -> ArgumentParser:
    """Returns an argument parser that raises errors instead of ending the program."""
    # jsonargparse's --print_config would leave out the students; config.yaml in the run's folder has everything.
    return ArgumentParser(
        prog=prog, description=description, exit_on_error=False, allow_abbrev=False, print_config=None
    )


def parse(p: ArgumentParser, argv: Sequence[str], *, defaults: bool = True, more: Collection[str] = ()) -> Any:
    """Returns the parsed arguments of a command as a namespace; defaults: whether it has options that were not given.

    more: options that were taken out of `argv` before, to be listed in the message on an unknown option.
    Raises UserError if an argument is unknown or its value does not fit; `HelpPage` if help is asked for.
    """
    if wants_help(argv):
        show_page(p, {"options": options_of(p)})
    try:
        return p.parse_args(list(argv), defaults=defaults)
    except Exception as error:
        for word in argv[: [*argv, "--"].index("--")]:  # after the argument -- there are no more options
            if word.startswith("--") and (option := word.partition("=")[0]) not in p._option_string_actions:
                raise unknown("option", option, [*option_names(p), *more]) from error
        raise UserError(_plain(str(error))) from error  # jsonargparse wraps the errors of our own checks as well


# jsonargparse's message on a field of type "int | None" lists the error of each of the two types.
_OPTIONAL_ERROR = re.compile(
    r'Parser key "([^"]+)":.*Expected a <class \'(?!NoneType)(\w+)\'>.*Given value: (.*)', re.DOTALL
)
_GROUP_ERROR = re.compile(r'Parser key "([^"]+)": Unable to load config "(.*)"')
_TYPE_ERROR = re.compile(r'Parser key "([^"]+)":\s+Expected an? (.+?)\. Got value: (.*)', re.DOTALL)


def _plain(message: str, where: str = "") -> str:
    """Returns jsonargparse's message in short: ``train.epochs must be int, got many``; where: text before the field."""
    if (optional := _OPTIONAL_ERROR.search(message)) is not None:
        field, kind, value = (part.strip() for part in optional.groups())
        return f"{where}{field} must be {kind} or null, got {value}"
    if (group := _GROUP_ERROR.search(message)) is not None:
        return f"{where}{group[1]} must hold fields, {{NAME: VALUE}}, got {group[2]}"
    found = _TYPE_ERROR.search(message)
    if found is None:
        return f"{where.rstrip('.')}: {message.strip()}" if where else message.strip()
    field, kind, value = (part.strip() for part in found.groups())
    kind = re.sub(r"<class '([^']+)'>", r"\1", kind).replace("typing.Literal", "one of ")
    return f"{where}{field} must be {kind}, got {value}"


def _fields() -> list[str]:
    plain = flatten(to_dict(RunConfig(students={})))
    return [name for name in plain if name != "students"]


# Keys of a recipe that are no fields: students are read separately, and a run's config.yaml begins with `recipe`.
_NO_FIELDS = ("students", "recipe")


def _check_known(tree: Mapping[str, Any], where: str) -> None:
    """Raises UserError if a recipe, `tree`, has a field that does not exist, and suggests the most similar one."""
    known = _fields()
    groups = {name.split(".")[0] for name in known if "." in name} | {"students"}
    for key, value in flatten({k: v for k, v in tree.items() if k not in _NO_FIELDS}).items():
        if key in groups and (value is None or value == {}):
            continue
        if key in groups:
            raise UserError(f"{key} in {where} must hold fields, {{NAME: VALUE}}, got {value!r}")
        if key not in known:
            raise unknown(f"field in {where}", key, known)


def _own_fields(
    argv: Sequence[str], extra: Collection[str], flags: Collection[str]
) -> tuple[list[str], list[Given], dict[str, Any]]:
    """Splits a command's arguments; returns (words for jsonargparse, options of students, own options by name).

    extra, flags: names of the command's own options with and without a value. ``--seed N`` sets the seeds of the
    teacher's and the students' training. Raises UserError if an option is unknown or lacks its value.
    """
    known = _fields()
    groups = {name.split(".")[0] for name in known if "." in name}
    words: list[str] = []
    students: list[Given] = []
    own: dict[str, Any] = {**dict.fromkeys(extra), **dict.fromkeys(flags, False)}
    for option in given_options(argv):
        key = option.key
        if key in flags:
            option.check_flag()
            own[key] = True
        elif key in extra:
            own[key] = option.value()
        elif key == "students" or key.startswith("students."):
            students.append(option)
        elif key == "seed":
            words += [f"--train.seed={option.value()}", f"--teacher_train.seed={option.value()}"]
        elif key == "data" and not option.value().lstrip().startswith("{"):
            words.append(f"--data.name={option.value()}")
        elif key in known or key in groups:
            words.append(f"--{key}={option.value()}")
        else:
            names = [*known, "students.NAME.FIELD", "seed", *extra, *flags]
            raise unknown("option", f"--{key}", [f"--{name}" for name in names])
    return words, students, own


@cache
def _student_parser(methods: tuple[str, ...]) -> ArgumentParser:
    """Returns the parser of a student's fields; it is cached, because making one for each student takes long."""
    p = parser("students", "")
    p.add_argument("--ce", type=float, default=DistillConfig().ce)
    for part in methods:
        p.add_class_arguments(METHODS[part], part)
    return p


def _students(tree: Any) -> dict[str, DistillConfig]:
    if not isinstance(tree, Mapping):
        raise UserError(f"students must hold names with what they learn from, {{NAME: {{kd: {{}}}}}}, got {tree!r}")
    result = {}
    for name, fields in tree.items():
        check_student_name(name)
        fields = {} if fields is None else fields
        where = f"students.{name}"
        if not isinstance(fields, Mapping):
            raise UserError(f"{where} must hold fields (ce, itrd, kd, ...), got {fields!r}")
        own = {k: {} if v is None else v for k, v in fields.items() if is_address(k)}
        given = {k: v for k, v in fields.items() if v is not None and k not in own}
        for key, value in flatten(given).items():
            if key in METHODS and not isinstance(value, Mapping):
                raise UserError(f"{where}.{key} must hold fields ({', '.join(to_dict(METHODS[key]()))}), got {value!r}")
            part, dot, field = key.partition(".")
            if dot and part in METHODS and field not in to_dict(METHODS[part]()):
                raise unknown(f"field of {where}.{part}", field, to_dict(METHODS[part]()))
            if part not in ("ce", *METHODS):
                raise unknown(f"field of {where}", part, ["ce", *METHODS, "package.module:Name"])
        p = _student_parser(tuple(part for part in METHODS if part in given))
        try:
            values = p.parse_object(dict(given)).as_dict()
        except Exception as error:
            raise UserError(_plain(str(error), f"{where}.")) from error
        parts = {part: make_group(METHODS[part], f"{where}.{part}", values[part]) for part in METHODS if part in given}
        try:
            result[name] = DistillConfig(ce=values["ce"], **parts, own=own)
        except FieldError as error:
            raise error.inside(where) from error
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
    return result


def run_config(
    command: str,
    description: str,
    recipe: dict[str, Any],
    argv: Sequence[str],
    *,
    extra: Mapping[str, str],
    flags: Mapping[str, str] = MappingProxyType({}),
    say: Callable[[str], None] | None = None,
) -> tuple[RunConfig, dict[str, Any]]:
    """Returns a recipe's configuration, with the fields in `argv` applied, and the command's own options as a dict.

    recipe: its nested dict. extra, flags: the command's own options with and without a value, name -> help. say is
    called with a line of text for each warm-up or list of milestones that was too long for `argv`'s fewer epochs.
    Raises UserError if a field is unknown, has a wrong type or is out of its range; `HelpPage` if help is asked for.
    """
    if "task" in recipe:
        raise UserError(f"bnn-itrd {command} takes recipes for images: use bnn-itrd run for this ({recipe['task']})")
    _check_known(recipe, "the recipe")
    if wants_help(argv):
        p = _field_parser(command, description, extra, flags)
        show_fields(p, list(extra), [*flags, "help"], epilog=_STUDENTS, methods=METHODS, whole=all_pages(argv))
    words, pairs, own = _own_fields(argv, extra, flags)
    tree = {key: value for key, value in recipe.items() if value is not None and key not in _NO_FIELDS}
    students: Any = recipe.get("students", to_dict(RunConfig())["students"])
    holder = {"students": copy.deepcopy(students)}
    for option in pairs:
        set_field(holder, option.key, parse_yaml(option.value(), where=f"--{option.key}: {option.value()!r}"))

    p = _kept_parser(command, tuple(extra), tuple(flags))
    as_recipe = ["--config", json.dumps(tree)] if tree else []
    values = parse(p, [*as_recipe, *words]).as_dict()
    if words and too_long(values):
        given = flatten(parse(p, words, defaults=False).as_dict())
        shorten_schedules(values, parse(p, as_recipe).as_dict(), given, say or (lambda line: None))
    return _configuration(values, _students(holder["students"])), own


@cache
def _kept_parser(command: str, extra: tuple[str, ...], flags: tuple[str, ...]) -> ArgumentParser:
    """Returns the parser of a recipe's fields, without help texts; it is cached because a sweep uses it many times."""
    return _field_parser(command, "", dict.fromkeys(extra, ""), dict.fromkeys(flags, ""))


_STUDENTS = (
    "--seed N sets teacher_train.seed and train.seed. Students are fields too: --students.NAME.ce 1, "
    "--students.NAME.kd.tau 4, --students.NAME.itrd.beta_mi 1, or --students '{recu: {}, mine: {itrd: {alpha: 1.5}}}'. "
    "A distiller of your own is one too: --students.NAME.package.module:Distiller.weight 1."
)
# Placeholders for the values of a command's own options.
_METAVARS = {
    "out": "DIR", "member": "NAME", "report": "{true,false}",
    "grid": "FIELD=A,B", "methods": "NAME", "reference": "NAME", "classes": "N", "model": "ADDRESS",
}  # fmt: skip


def _field_parser(command: str, description: str, extra: Mapping[str, str], flags: Mapping[str, str]) -> ArgumentParser:
    """Returns a command's parser: a recipe's fields, and own options with a value (extra) or without (flags)."""
    p = parser(f"bnn-itrd {command}", description)
    own = "".join(
        f" --{name} {_METAVARS[name]}" if name == "member" else f" [--{name} {_METAVARS[name]}]" for name in extra
    )
    p.usage = f"bnn-itrd {command} RECIPE{own} [--data NAME] [--data.root ROOT] [--FIELD VALUE ...]"
    p.add_argument("--config", action="config", help=argparse.SUPPRESS)  # how the recipe reaches the parser
    for name, text in extra.items():
        p.add_argument(f"--{name}", type=str, default=None, help=text, metavar=_METAVARS[name])
    for name, text in flags.items():
        p.add_argument(f"--{name}", action="store_true", help=text)
    p.add_class_arguments(RunConfig, None, skip={"students"})
    return p


def _configuration(values: Mapping[str, Any], students: dict[str, DistillConfig]) -> RunConfig:
    """Returns the `RunConfig` that is made from parsed values and students; raises FieldError if one does not fit."""
    groups = make_groups(RunConfig, values)
    try:
        config = RunConfig(students=students, **groups)
    except FieldError as error:
        # The error is about several groups, or about a field that is in no group, and names that field in full.
        raise error.at(error.field.rpartition(".")[0]) from error
    # This comes last because it imports torch, and an error before it should be shown quickly.
    return dataclasses.replace(config, scheme=config.scheme.resolved())


def data_config(p: ArgumentParser, argv: Sequence[str]) -> tuple[Any, dict[str, Any]]:
    """Parses the arguments of a command that takes ``--data.*``; returns (its other options, the given data fields).

    The fields are a dict, name without ``data.`` -> value. Raises UserError if a field is unknown, or `unlabelled` is
    given, because these commands need every label.
    """
    if wants_help(argv):
        show_data(p, whole=all_pages(argv))
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
        set_field(given, name, value)
    checker = parser("data", "")
    checker.add_class_arguments(DataConfig, "data")
    flat = flatten(given)
    typed = parse(checker, [f"--{k}={v}" for k, v in flat.items()])
    values = {k.removeprefix("data."): getattr(typed.data, k.removeprefix("data.")) for k in flat}
    if values.get("unlabelled"):
        raise UserError("data.unlabelled is for training, but this command needs the label of each image: leave it out")
    return parse(p, rest, more=["--data", "--data.root"]), values
