"""The command ``bnn-itrd bench``, which measures the latency of exported files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from bnn_itrd.cli.options import add_json, add_python, add_threads, check_pythons, say_note
from bnn_itrd.config.parse import parse, parser
from bnn_itrd.console import print_table, print_text
from bnn_itrd.errors import UserError

__all__ = ["command"]


def command(argv: Sequence[str]) -> int:
    """Runs ``bench FILE... --threads 1 2 --batch 1 32 --against FILE``, which times exported files; returns 0."""
    p = parser(
        "bnn-itrd bench",
        "Time exported files: print milliseconds per image, and the ratio to a reference, which is the first file or "
        "--against. The files take turns in one process, so that a busy machine slows all alike. An .onnx file of a "
        "binary network is timed with this package's native library, if that is built, and with stock onnxruntime. A "
        ".tflite runs in a process of Larq Compute Engine, at batch 1.",
    )
    p.usage = "bnn-itrd bench FILE... [--against FILE] [--threads N...] [--batch N...] [--repeats N] [--json]"
    p.add_argument("files", nargs="+", help="files written by bnn-itrd, or folders of runs or of their networks")
    p.add_argument(
        "--against",
        type=str,
        default=None,
        metavar="FILE",
        help="the reference: an .onnx file, such as the teacher's, or a run folder that has a teacher",
    )
    add_threads(p, several=True)
    p.add_argument("--batch", type=int, metavar="N", nargs="+", default=[1], help="images per call")
    p.add_argument("--repeats", type=int, default=40, help="how many times each file is timed")
    add_python(p, "lce")
    add_json(p)
    args = parse(p, argv)
    if min([*args.threads, *args.batch, args.repeats]) < 1:
        raise UserError("--threads, --batch and --repeats must be >= 1")
    from bnn_itrd.deploy.bench import time_files
    from bnn_itrd.deploy.targets import target_of
    from bnn_itrd.export.runtime.bench import timing_cells
    from bnn_itrd.export.runtime.machine import describe_machine

    files = [_exported(Path(file)) for file in args.files]
    against = _reference(Path(args.against)) if args.against else None
    check_pythons(args, [target_of(file).runtime for file in files])
    rows = time_files(
        files,
        against=against,
        threads=args.threads,
        batches=args.batch,
        repeats=args.repeats,
        lce_python=args.lce_python,
    )
    if args.json:
        print(json.dumps({"machine": describe_machine(), "rows": rows}, indent=1))
        return 0
    print_table([timing_cells(row) for row in rows], names=2)
    print_text(", ".join(f"{key} {value}" for key, value in describe_machine().items()))
    return 0


def _exported(path: Path) -> Path:
    """Returns the exported file for a path, which is a file, the folder of a run or network, or a checkpoint."""
    if path.is_file() and path.suffix != ".pt":
        return path
    from bnn_itrd.runs.finished.exported import find_exported

    return find_exported(path, say=say_note)


def _reference(path: Path) -> Path:
    """Returns the exported file with which the others are compared, from the path that the user gave as --against.

    For the folder of a run it is the teacher's file, if there is one, and else the student's.
    """
    teacher = path / "teacher" / "teacher.onnx"
    return teacher if teacher.is_file() else _exported(path)
