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

# Name -> (its module, what it takes, one line): the module's `command` takes the words behind the name.
COMMANDS: dict[str, tuple[str, str, str]] = {
    "run": (
        "bnn_itrd.cli.run",
        "RECIPE",
        "train a teacher and its binary students, export, validate, compare: the whole road",
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
        "hold files against the network they came from, on the test images",
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
    "table": ("bnn_itrd.cli.table", "NAME", "a paper's table, beside the runs that fill its cells"),
    "sweep": (
        "bnn_itrd.cli.sweep",
        "RECIPE",
        "a grid of trainings (methods x seeds, any fields): mean, spread, and what they can tell",
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
    """The text of ``bnn-itrd --help``, made from `COMMANDS`."""
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
            "       bnn-itrd COMMAND --help      what it takes, the most used options first",
            "       bnn-itrd COMMAND --help all  every option",
            "",
            *lines,
            "",
            "Start with:  bnn-itrd run digits",
            "",
        ]
    )


def _run(command: Callable[[Sequence[str]], int], words: Sequence[str]) -> int:
    """Runs a command; prints its help where that ends it."""
    try:
        return command(words)
    except SystemExit as ended:
        if (page := getattr(ended, "page", None)) is not None:  # config.help.HelpPage, loaded with the command
            page.print_help()
        raise


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; 0 where all went well, 1 where a stated limit was passed, 2 on input that does not fit.

    0 too where ``train.max_seconds`` ended a training: the line that says so, and status.json, tell it apart.
    128 + the number of the signal where one ended it: Ctrl-C 130, SIGTERM 143. 3 where one of several processes ended.
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
            raise unknown("command", name, COMMANDS)
        with stoppable():
            status = _run(importlib.import_module(COMMANDS[name][0]).command, arguments[1:])
            sys.stdout.flush()
            return status
    except UserError as error:
        print(f"bnn-itrd: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever read the output has enough of it (| head)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is still to be written at the end goes nowhere
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
        # Here, not at the top: the command line alone starts without torch.
        from bnn_itrd.export import ExportError

        if not isinstance(error, ExportError):
            raise
        print(f"bnn-itrd: {error}", file=sys.stderr)
        return 2
