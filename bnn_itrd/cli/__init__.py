"""The command line: `bnn-itrd COMMAND ...`."""

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

# Name -> (its module, its arguments, one line of help): the module's `command` gets the arguments after the name.
# What stands in place of a command.
_OPTIONS = ("--help", "--version")
COMMANDS: dict[str, tuple[str, str, str]] = {
    "run": (
        "bnn_itrd.cli.run",
        "RECIPE",
        "train a teacher and its binary students, export, validate and compare them",
    ),
    "train": ("bnn_itrd.cli.train", "RECIPE", "train one member of a recipe"),
    "evaluate": (
        "bnn_itrd.cli.evaluate",
        "PATH",
        "accuracy of a trained network or an exported file on the test images",
    ),
    "export": ("bnn_itrd.cli.export", "PATH", "a trained network to files: ONNX, Larq Compute Engine, QONNX"),
    "validate": (
        "bnn_itrd.cli.validate",
        "FILE...",
        "compare files with the network they came from, on the test images",
    ),
    "bench": ("bnn_itrd.cli.bench", "FILE...", "milliseconds per image, and how much faster than a reference"),
    "predict": (
        "bnn_itrd.cli.predict",
        "FILE IMAGE...",
        "class names and probabilities of images, or folders of them",
    ),
    "summary": (
        "bnn_itrd.cli.summary",
        "WHAT",
        "layers, bits, MACs and bytes of a recipe's networks or of a trained one",
    ),
    "compare": ("bnn_itrd.cli.compare", "DIR...", "one table of several runs"),
    "table": ("bnn_itrd.cli.table", "NAME", "a paper's table, and the runs that fill its cells"),
    "sweep": (
        "bnn_itrd.cli.sweep",
        "RECIPE",
        "a grid of trainings (methods x seeds, any fields): means, spreads, and which differences are significant",
    ),
    "probe": (
        "bnn_itrd.cli.probe",
        "PATH",
        "a linear classifier on a trained network's representation of another data set",
    ),
    "recipes": ("bnn_itrd.cli.recipes", "", "the recipes that come with the package"),
    "completion": ("bnn_itrd.cli.completion", "SHELL", "a script that completes these commands in bash or zsh"),
}


def _help() -> str:
    """Returns the text of ``bnn-itrd --help``, made from `COMMANDS`."""
    lines = []
    for name, (_, takes, line) in COMMANDS.items():
        first, *more = textwrap.wrap(line, 54)
        lines += [f"  {f'{name} {takes}'.ljust(22)}  {first}", *(" " * 26 + text for text in more)]
    return "\n".join(
        [
            "bnn-itrd: from a full-precision vision network to a 1-bit one, as a file that",
            "is proven to run.",
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
    """Runs a command; prints its help if the command ends by asking for that."""
    try:
        return command(words)
    except SystemExit as ended:
        if (page := getattr(ended, "page", None)) is not None:  # config.help.HelpPage, loaded with the command
            page.print_help()
        raise


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit status.

    0: success, or ``train.max_seconds`` ended a training, as a line of output and status.json then say. 1: a stated
    limit was exceeded. 2: wrong input. 3: one of several processes has ended. 128 + the signal's number: a signal ended
    the command (Ctrl-C 130, SIGTERM 143).
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
    except BrokenPipeError:  # the reader of the output has closed it (| head)
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
        # It is imported here and not at the top, so that the command line starts without torch.
        from bnn_itrd.export import ExportError

        if not isinstance(error, ExportError):
            raise
        print(f"bnn-itrd: {error}", file=sys.stderr)
        return 2
