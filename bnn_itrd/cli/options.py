"""Options that several commands share."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from jsonargparse import ArgumentParser

from bnn_itrd.errors import UserError

__all__ = [
    "OUT",
    "REPORT",
    "TRUST",
    "add_best",
    "add_json",
    "add_own_network",
    "add_python",
    "add_threads",
    "check_pythons",
    "check_together",
    "check_unused",
    "python_of",
    "reported",
    "say_note",
]

# The option of `run` and `train` that names the run's folder.
OUT = {"out": "folder of the run; runs/RECIPE by default"}

# Their option to train without export and comparison.
REPORT = {"report": "false: only train; the same command without it exports and compares"}

# The flag without which no command imports a user's own code that only a run's folder names.
TRUST = {"trust": "run the code of your own that this run or file names"}

# A file's runtime (`deploy.targets.Target.runtime`) -> the package that its Python needs.
_PYTHONS = {"lce": "larq-compute-engine", "fpga": "qonnx"}
# The same -> the files that run in it.
_FILES = {"lce": ".tflite", "fpga": ".qonnx.onnx and .finn.onnx"}


def reported(own: Mapping[str, Any]) -> bool:
    """Returns the value of --report, True if it was not given.

    >>> reported({"report": None}), reported({"report": "false"})
    (True, False)
    """
    given = own["report"]
    if given not in (None, "true", "false"):
        raise UserError(f"--report must be true or false, got {given}")
    return given != "false"


def add_json(p: ArgumentParser) -> None:
    """Adds --json, which prints JSON instead of a table."""
    p.add_argument("--json", action="store_true", help="print JSON")


def add_best(p: ArgumentParser) -> None:
    """Adds --best, which loads best.pt instead of last.pt."""
    p.add_argument("--best", action="store_true", help="load the epoch with the best top-1, not the last")


def add_own_network(p: ArgumentParser) -> None:
    """Adds --model and --trust, with which a run of a user's own network is loaded."""
    p.add_argument(
        "--model",
        type=str,
        default=None,
        metavar="ADDRESS",
        help="package.module:NAME, a class or function of your own that makes the network of this run",
    )
    p.add_argument("--trust", action="store_true", help=TRUST["trust"])


def check_unused(args: Any, names: Iterable[str], path: str, kind: str) -> None:
    """Raises UserError if an option was given that does not apply to a path of this kind.

    >>> import argparse
    >>> check_unused(argparse.Namespace(model="mynets:make"), ["model"], "digits", "a recipe")
    Traceback (most recent call last):
    bnn_itrd.errors.UserError: --model is for a run's folder or checkpoint, but digits is a recipe: leave it out
    """
    if given := [f"--{name}" for name in names if getattr(args, name)]:
        raise UserError(f"{given[0]} is for a run's folder or checkpoint, but {path} is {kind}: leave it out")


def check_together(args: Any, first: str, others: Iterable[str], why: str) -> None:
    """Raises UserError if an option was given that has no effect with another given one.

    >>> import argparse
    >>> check_together(argparse.Namespace(json=True, markdown=True), "json", ["markdown"], "prints all as JSON")
    Traceback (most recent call last):
    bnn_itrd.errors.UserError: --markdown has no effect with --json, which prints all as JSON: leave one of them out
    """
    for other in others if getattr(args, first) else ():
        if getattr(args, other):
            raise UserError(f"--{other} has no effect with --{first}, which {why}: leave one of them out")


def add_python(p: ArgumentParser, runtime: str) -> None:
    """Adds --lce_python or --fpga_python, which names an interpreter that has the runtime."""
    names = f"--{runtime}_python", f"--{runtime}-python"
    p.add_argument(*names, type=str, default=None, metavar="PYTHON", help=f"a python with {_PYTHONS[runtime]}")


def say_note(line: str) -> None:
    """Prints a line on standard error about a choice that was made for the user."""
    print(f"note: {line}", file=sys.stderr)


def python_of(args: Any, runtime: str | None) -> str | None:
    """Returns the interpreter that the options name for a runtime, or None.

    >>> import argparse
    >>> python_of(argparse.Namespace(lce_python="/opt/lce/bin/python"), "lce")
    '/opt/lce/bin/python'
    """
    chosen: str | None = getattr(args, f"{runtime}_python", None)
    return chosen


def check_pythons(args: Any, runtimes: Collection[str | None]) -> None:
    """Raises UserError where an interpreter is named for a runtime that none of the files runs in.

    >>> import argparse
    >>> check_pythons(argparse.Namespace(lce_python="/opt/lce/bin/python", fpga_python=None), [None, "fpga"])
    Traceback (most recent call last):
    bnn_itrd.errors.UserError: --lce_python is for .tflite files, and none is given: leave it out
    """
    for runtime, files in _FILES.items():
        if python_of(args, runtime) is not None and runtime not in runtimes:
            raise UserError(f"--{runtime}_python is for {files} files, and none is given: leave it out")


def add_threads(p: ArgumentParser, *, several: bool = False) -> None:
    """Adds --threads, a file's number of threads; several: a list of numbers to try in turn."""
    if several:
        p.add_argument("--threads", type=int, nargs="+", default=[1], metavar="N", help="threads of the runtime")
    else:
        p.add_argument("--threads", type=int, default=1, help="threads of the runtime")
