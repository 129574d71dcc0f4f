"""The command line: `bnn-itrd COMMAND ...`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from bnn_itrd.errors import UserError, unknown

__all__ = ["COMMANDS", "main"]

_HELP = """bnn-itrd: from a full-precision vision network to a 1-bit one, as a file that is proven to run.

usage: bnn-itrd COMMAND ...        (bnn-itrd COMMAND --help says more)

  run RECIPE         train a teacher and its binary students, export, validate, compare: the whole road
  train RECIPE       train one member of a recipe
  evaluate PATH      accuracy of a trained network or an exported file on the test images
  export PATH        a trained network to files: ONNX, Larq Compute Engine, QONNX
  validate FILE...   hold files against the network they came from, on the test images
  bench FILE...      milliseconds per image, and how much faster than a reference
  predict FILE IMG   class names and probabilities of image files
  summary WHAT       layers, bits, MACs and bytes of a recipe's networks or of a trained one
  compare DIR...     one table of several runs
  sweep RECIPE       a grid of trainings (methods x seeds, any fields): mean, spread, and what they can tell
  probe PATH         a linear classifier on a trained network's representation of another data set
  recipes            the recipes that come with the package

Start with:  bnn-itrd run digits
"""


def _commands() -> dict[str, Callable[[Sequence[str]], int]]:
    from bnn_itrd import commands, deploy_commands, file_commands, sweep_commands

    return {
        "run": commands.run,
        "train": commands.train,
        "evaluate": file_commands.evaluate,
        "export": deploy_commands.export,
        "validate": deploy_commands.validate,
        "bench": deploy_commands.bench,
        "predict": file_commands.predict,
        "summary": commands.summary,
        "compare": commands.compare,
        "sweep": sweep_commands.sweep,
        "probe": sweep_commands.probe,
        "recipes": commands.recipes,
    }


COMMANDS = (
    *("run", "train", "evaluate", "export", "validate", "bench", "predict", "summary", "compare", "sweep", "probe"),
    "recipes",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; 0 where all went well, 1 where a stated limit was passed, 2 on input that does not fit."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_HELP, end="")
        return 0
    if arguments[0] in ("-V", "--version"):
        from bnn_itrd import __version__

        print(f"bnn-itrd {__version__}")
        return 0
    try:
        name = arguments[0]
        if name not in COMMANDS:
            raise unknown("command", name, COMMANDS)
        return _commands()[name](arguments[1:])
    except UserError as error:
        print(f"bnn-itrd: {error}", file=sys.stderr)
        return 2
    except (FileNotFoundError, PermissionError) as error:
        print(f"bnn-itrd: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nbnn-itrd: stopped; the same command continues from the last finished epoch", file=sys.stderr)
        return 130
    except RuntimeError as error:
        # Here, not at the top: the command line alone starts without torch.
        from bnn_itrd.export import ExportError

        if not isinstance(error, ExportError):
            raise
        print(f"bnn-itrd: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
