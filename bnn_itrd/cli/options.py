"""Functions that add and check the options that several commands share."""

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

# The option of `run` and `train` to train without export and comparison.
REPORT = {"report": "false: only train; without this option the same command then exports and compares"}

# The flag that allows a command to import a user's own code that is named in a run's folder or an exported file.
TRUST = {"trust": "import and run your own code that this run or file names"}

# Name of a runtime that needs a Python of its own (`deploy.targets.Target.runtime`) -> the package that is in it.
_PYTHONS = {"lce": "larq-compute-engine", "fpga": "qonnx"}
# Name of the runtime -> the files that run in it.
_FILES = {"lce": ".tflite", "fpga": ".qonnx.onnx and .finn.onnx"}


def reported(own: Mapping[str, Any]) -> bool:
    """Returns whether a run is to be exported and compared, as --report says; True if that was not given.

    own: the command's own options by name. Raises UserError if the value is neither true nor false.

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
    """Adds --best, which loads the checkpoint of the best epoch, best.pt, instead of the last one, last.pt."""
    p.add_argument("--best", action="store_true", help="load the weights of the best epoch (best.pt), not of the last")


def add_own_network(p: ArgumentParser) -> None:
    """Adds --model and --trust, with which a run that has a network of the user's own can be loaded."""
    p.add_argument(
        "--model",
        type=str,
        default=None,
        metavar="ADDRESS",
        help="package.module:NAME, a class or function of your own that makes the network of this run",
    )
    p.add_argument("--trust", action="store_true", help=TRUST["trust"])


def check_unused(args: Any, names: Iterable[str], path: str, kind: str) -> None:
    """Raises UserError if one of the options `names` was given, which apply only to a run's folder or a checkpoint.

    path: what the user gave instead of these. kind: what that is, in words for the message.

    >>> import argparse
    >>> check_unused(argparse.Namespace(model="mynets:make"), ["model"], "digits", "a recipe")
    Traceback (most recent call last):
    bnn_itrd.errors.UserError: --model is for a run's folder or checkpoint, but digits is a recipe: leave it out
    """
    if given := [f"--{name}" for name in names if getattr(args, name)]:
        raise UserError(f"{given[0]} is for a run's folder or checkpoint, but {path} is {kind}: leave it out")


def check_together(args: Any, first: str, others: Iterable[str], why: str) -> None:
    """Raises UserError if the option `first` was given together with one of `others`, which have no effect with it.

    why: the reason, for the message.

    >>> import argparse
    >>> check_together(argparse.Namespace(json=True, markdown=True), "json", ["markdown"], "prints all as JSON")
    Traceback (most recent call last):
    bnn_itrd.errors.UserError: --markdown has no effect with --json, which prints all as JSON: leave one of them out
    """
    for other in others if getattr(args, first) else ():
        if getattr(args, other):
            raise UserError(f"--{other} has no effect with --{first}, which {why}: leave one of them out")


def add_python(p: ArgumentParser, runtime: str) -> None:
    """Adds --lce_python or --fpga_python, which names a Python interpreter that has the runtime ('lce' or 'fpga')."""
    names = f"--{runtime}_python", f"--{runtime}-python"
    p.add_argument(*names, type=str, default=None, metavar="PYTHON", help=f"a python with {_PYTHONS[runtime]}")


def say_note(line: str) -> None:
    """Prints a note on standard error, about a choice that the command made because the user did not."""
    print(f"note: {line}", file=sys.stderr)


def python_of(args: Any, runtime: str | None) -> str | None:
    """Returns the Python interpreter that the user named for a runtime, or None.

    runtime: 'lce' or 'fpga'; None for a file that onnxruntime runs, which needs no other interpreter.

    >>> import argparse
    >>> python_of(argparse.Namespace(lce_python="/opt/lce/bin/python"), "lce")
    '/opt/lce/bin/python'
    """
    chosen: str | None = getattr(args, f"{runtime}_python", None)
    return chosen


def check_pythons(args: Any, runtimes: Collection[str | None]) -> None:
    """Raises UserError if --lce_python or --fpga_python was given, but no file runs in that runtime.

    runtimes: the runtime of each file; None stands for onnxruntime.

    >>> import argparse
    >>> check_pythons(argparse.Namespace(lce_python="/opt/lce/bin/python", fpga_python=None), [None, "fpga"])
    Traceback (most recent call last):
    bnn_itrd.errors.UserError: --lce_python is for .tflite files, and none is given: leave it out
    """
    for runtime, files in _FILES.items():
        if python_of(args, runtime) is not None and runtime not in runtimes:
            raise UserError(f"--{runtime}_python is for {files} files, and none is given: leave it out")


def add_threads(p: ArgumentParser, *, several: bool = False) -> None:
    """Adds --threads, the number of threads that run a file; several: more than one number may be given."""
    if several:
        p.add_argument("--threads", type=int, nargs="+", default=[1], metavar="N", help="threads that run a file")
    else:
        p.add_argument("--threads", type=int, default=1, help="threads that run a file")
