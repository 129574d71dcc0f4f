"""The command `bnn-itrd-runtime` with its subcommands `predict`, `bench` and `info`."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .distribution import DISTRIBUTION, installed_version
from .errors import ExportError, ImageError

__all__ = ["describe_file", "main"]

# Exit status that a shell shows for a program which the signal SIGPIPE (number 13) ended.
_BROKEN_PIPE = 128 + 13


def describe_file(file: Path) -> dict[str, Any]:
    """Returns facts about an exported file by name, which the command `info` prints.

    They are `bytes` (the file's size), `input` (name, type and shape), `form` ("native" if the compiled native library
    computes its binary layers, "stock" if onnxruntime's own operations do), all metadata of the file, and `operations`
    (name -> number of them; an operation that stands for several is counted as those).
    Raises what `session` raises.

    >>> describe_file(Path("student.onnx"))["input"]
    "images tensor(float) ['batch', 3, 4, 4]"
    """
    import onnxruntime

    from .onnx_file import read_model
    from .sessions import read_metadata, session, uses_native

    metadata = read_metadata(file)
    model = read_model(file.read_bytes())
    bodies = {(function.domain, function.name): function.operations for function in model.functions}
    counts: Counter[str] = Counter()
    for node in model.operations:
        chain = bodies.get((node.domain, node.op_type), ()) if node.op_type.startswith("Chain") else ()
        for inner in chain or (node,):
            counts[f"{inner.domain}.{inner.op_type}" if inner.domain else inner.op_type] += 1
    opened: onnxruntime.InferenceSession = session(file)
    return {
        "bytes": file.stat().st_size,
        "input": f"{opened.get_inputs()[0].name} {opened.get_inputs()[0].type} {opened.get_inputs()[0].shape}",
        "form": "native" if uses_native(opened) else "stock",
        **metadata,
        "operations": dict(counts.most_common()),
    }


def _options() -> argparse.ArgumentParser:
    """Returns the parser of the arguments of `bnn-itrd-runtime`, with one subparser for each subcommand."""
    p = argparse.ArgumentParser(
        prog=DISTRIBUTION, description="Run .onnx files written by bnn-itrd, with NumPy and onnxruntime alone."
    )
    p.add_argument("-V", "--version", action="version", version=f"{DISTRIBUTION} {installed_version()}")
    commands = p.add_subparsers(dest="command", required=True, metavar="COMMAND")
    predict = commands.add_parser("predict", help="print the most probable classes of image files (needs Pillow)")
    predict.add_argument("file", type=Path, help=".onnx file exported by bnn-itrd")
    predict.add_argument("images", nargs="+", type=Path, help="image files, or folders that contain image files")
    predict.add_argument("--top", type=int, default=3, help="number of classes to print for each image (default: 3)")
    predict.add_argument("--threads", type=int, default=1, help="number of threads for an operation (default: 1)")
    bench = commands.add_parser("bench", help="measure milliseconds per image; the files run in turns in one process")
    bench.add_argument("files", nargs="+", type=Path, help=".onnx files to measure")
    bench.add_argument(
        "--against",
        type=Path,
        default=None,
        help=".onnx file that the others are compared with; it runs without the native library (default: the first)",
    )
    bench.add_argument(
        "--threads", type=int, nargs="+", default=[1], help="numbers of threads to measure with (default: 1)"
    )
    bench.add_argument("--batch", type=int, nargs="+", default=[1], help="numbers of images per call (default: 1)")
    bench.add_argument("--repeats", type=int, default=40, help="number of turns of each file (default: 40)")
    info = commands.add_parser("info", help="print a file's metadata and operations, and what this machine is")
    info.add_argument("file", nargs="?", type=Path, help=".onnx file; without it, only the machine is described")
    for command in (bench, info):
        command.add_argument("--json", action="store_true", help="print the result as JSON")
    return p


def _predict(args: argparse.Namespace) -> None:
    """Runs `predict`, which prints a line for each image.

    Raises ImageError at the end, with a line for each image that could not be used.
    """
    from .images import photo_files
    from .predict import classify_images

    if args.top < 1:
        raise ValueError(f"--top must be >= 1, got {args.top}")
    unusable: list[ImageError] = []
    photos = photo_files(args.images, say=_say)
    for result in classify_images(args.file, photos, top=args.top, threads=args.threads, skipped=unusable.append):
        print(result)
    if unusable:
        raise ImageError("\n".join(map(str, unusable)))


def _print_table(rows: Sequence[Mapping[str, str]]) -> None:
    """Prints rows, which are dicts from a column's name to a text, as a table with a heading.

    The first two columns are aligned to the left, the others, which are numbers, to the right. If the table is wider
    than the terminal, each row becomes a block of lines.
    """
    names = list(rows[0])
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in names}
    if sum(widths.values()) + 2 * len(names) > shutil.get_terminal_size().columns:
        length = max(map(len, names))
        for row in rows:
            print(" ".join(row[n] for n in names[:2]), *(f"  {n.ljust(length)}  {row[n]}" for n in names[2:]), sep="\n")
        return
    for row in [dict(zip(names, names, strict=True)), *rows]:
        cells = [row[n].ljust(widths[n]) if n in names[:2] else row[n].rjust(widths[n]) for n in names]
        print("  ".join(cells).rstrip())


def _bench(args: argparse.Namespace) -> None:
    """Runs `bench`, which prints a table of times, or JSON, and the machine on which they were measured."""
    from .bench import time_onnx, timing_cells
    from .machine import describe_machine

    against = [] if args.against is None else [args.against]
    files = [*against, *(file for file in args.files if file not in against)]
    rows = time_onnx(files, threads=args.threads, batches=args.batch, repeats=args.repeats)
    machine = describe_machine()
    if args.json:
        print(json.dumps({"machine": machine, "rows": rows}, indent=1))
        return
    _print_table([timing_cells(row) for row in rows])
    print(", ".join(f"{key} {value}" for key, value in machine.items()))


def _info(args: argparse.Namespace) -> None:
    """Runs `info`, which prints a line, or an entry of JSON, for each fact about the file and the machine."""
    from .machine import describe_machine

    found: dict[str, Any] = {} if args.file is None else {"file": str(args.file), **describe_file(args.file)}
    found |= {DISTRIBUTION: installed_version(), **describe_machine()}
    if args.json:
        print(json.dumps(found, indent=1))
        return
    for key, value in found.items():
        if isinstance(value, dict):
            value = ", ".join(f"{count} {name}" for name, count in value.items())
        print(f"{key}: {', '.join(map(str, value)) if isinstance(value, list) else value}")


def _say(message: Warning | str, *_: object, **__: object) -> None:
    """Prints a note or a warning to stderr in the form of the error messages, "PROGRAM: MESSAGE".

    It replaces `warnings.showwarning`, whose other arguments, the place in the code, are of no use to the user.
    """
    print(f"{DISTRIBUTION}: {message}", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit status. argv: the arguments; None means those of this process.

    The status is 0 on success, 2 after an error message, and 141 if the program that reads the output has ended.

    >>> main(["info", "no-such-file.onnx"])  # prints a message to stderr
    2
    """
    args = _options().parse_args(argv)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _say
            {"predict": _predict, "bench": _bench, "info": _info}[args.command](args)
        sys.stdout.flush()
    except BrokenPipeError:  # the program that reads the output has ended, as in `... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that Python's last flush does not fail
        return _BROKEN_PIPE
    except MemoryError as error:
        print(f"{DISTRIBUTION}: not enough memory: {error}".removesuffix(": "), file=sys.stderr)
        return 2
    except (ExportError, ValueError, OSError) as error:
        print(f"{DISTRIBUTION}: {error}", file=sys.stderr)
        return 2
    return 0
