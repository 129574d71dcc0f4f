"""The command line: `main` runs ``bnn-itrd COMMAND ...``, and the package has one module for each command."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import textwrap
from collections.abc import Callable, Sequence

from bnn_itrd.cli.signals import Stopped, stoppable
from bnn_itrd.errors import LostProcess, Unfinished, UserError, remedy, unknown

__all__ = ["COMMANDS", "main"]

# What may be given instead of a command.
_OPTIONS = ("--help", "--version")
# Name -> (its module, its arguments, one line of help). The module's function `command` gets the arguments after the
# name and returns the exit status.
COMMANDS: dict[str, tuple[str, str, str]] = {
    "run": (
        "bnn_itrd.cli.run",
        "RECIPE",
        "train a teacher and its binary students, export, validate and compare them",
    ),
    "train": ("bnn_itrd.cli.train", "RECIPE", "train one network of a recipe: the teacher or a student"),
    "evaluate": (
        "bnn_itrd.cli.evaluate",
        "PATH",
        "print the accuracy of a trained network or an exported file on the test images",
    ),
    "export": ("bnn_itrd.cli.export", "PATH", "write a trained network as files: ONNX, Larq Compute Engine, QONNX"),
    "validate": (
        "bnn_itrd.cli.validate",
        "FILE...",
        "compare files with the network they came from, on the test images",
    ),
    "bench": (
        "bnn_itrd.cli.bench",
        "FILE...",
        "time files: milliseconds per image, and how much faster they are than a reference",
    ),
    "predict": (
        "bnn_itrd.cli.predict",
        "FILE IMAGE...",
        "classify images or folders of images: class names and probabilities",
    ),
    "summary": (
        "bnn_itrd.cli.summary",
        "WHAT",
        "print layers, bits, MACs and bytes of a recipe's networks or of a trained one",
    ),
    "compare": ("bnn_itrd.cli.compare", "DIR...", "print one table of several runs"),
    "table": ("bnn_itrd.cli.table", "NAME", "print a paper's table with the results of your runs in its cells"),
    "sweep": (
        "bnn_itrd.cli.sweep",
        "RECIPE",
        "train a grid (methods x seeds, any fields): means, spreads, and which differences are significant",
    ),
    "probe": (
        "bnn_itrd.cli.probe",
        "PATH",
        "train a linear classifier on a trained network's representation of another data set",
    ),
    "recipes": ("bnn_itrd.cli.recipes", "", "list the recipes that come with the package"),
    "completion": ("bnn_itrd.cli.completion", "SHELL", "print a script that completes these commands in bash or zsh"),
}


def _help() -> str:
    """Returns the text of ``bnn-itrd --help``, made from `COMMANDS`."""
    lines = []
    for name, (_, takes, line) in COMMANDS.items():
        first, *more = textwrap.wrap(line, 54)
        lines += [f"  {f'{name} {takes}'.ljust(22)}  {first}", *(" " * 26 + text for text in more)]
    return "\n".join(
        [
            "bnn-itrd turns a full-precision vision network into a 1-bit one, exports it, and",
            "compares the exported file with the network.",
            "",
            "usage: bnn-itrd COMMAND ...",
            "       bnn-itrd COMMAND --help      its most used options",
            "       bnn-itrd COMMAND --help all  every option",
            "",
            *lines,
            "",
            "Start with:  bnn-itrd run digits",
            "",
        ]
    )


def _run(command: Callable[[Sequence[str]], int], words: Sequence[str]) -> int:
    """Runs a command with its arguments and returns its exit status; prints its help if it raises `HelpPage`."""
    try:
        return command(words)
    except SystemExit as ended:
        if (page := getattr(ended, "page", None)) is not None:  # config.help.HelpPage, loaded with the command
            page.print_help()
        raise


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit status; argv: the arguments, by default those of the process.

    0: success, or a training that ``train.max_seconds`` ended, about which a line is printed. 1: a part of the work
    failed: a file of `validate` or `export`, or a point of `sweep`. 2: wrong input. 3: another of several training
    processes has ended. 128 + the signal's number: a signal ended the command (Ctrl-C 130, SIGTERM 143).
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help(), end="")
        return 0
    if arguments[0] in ("-V", "--version"):
        from bnn_itrd import __version__

        print(f"bnn-itrd {__version__}")
        return 0
    try:
        name = arguments[0]
        if name not in COMMANDS:
            raise unknown("option", name, _OPTIONS) if name.startswith("-") else unknown("command", name, COMMANDS)
        with stoppable():
            status = _run(importlib.import_module(COMMANDS[name][0]).command, arguments[1:])
            sys.stdout.flush()
            return status
    except UserError as error:
        print(f"bnn-itrd: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the program that reads the output has ended, as in `bnn-itrd ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the rest of the output is discarded
        return 128 + signal.SIGPIPE
    except OSError as error:
        print(f"bnn-itrd: {error}. {remedy(error, writing=False)}".removesuffix(". "), file=sys.stderr)
        return 2
    except Unfinished as unfinished:
        print(f"bnn-itrd: {unfinished}")
        return 0
    except KeyboardInterrupt as error:
        stopped = error if isinstance(error, Stopped) else Stopped(signal.SIGINT)
        print(stopped.message(), file=sys.stderr)
        return stopped.status
    except LostProcess as lost:
        print(f"bnn-itrd: {lost}", file=sys.stderr)
        return lost.status
    except RuntimeError as error:
        # This import is not at the top of the file, because it loads torch, and the command line should start quickly.
        from bnn_itrd.export import ExportError

        if not isinstance(error, ExportError):
            raise
        print(f"bnn-itrd: {error}", file=sys.stderr)
        return 2
