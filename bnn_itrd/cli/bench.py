"""``bnn-itrd bench`` measures the latency of exported files."""

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
    """Runs ``bench FILE... --threads 1 2 --batch 1 32 --against FILE``, which times files in turns in one process."""
    p = parser(
        "bnn-itrd bench",
        "Milliseconds per image of exported files, timed in turns in one process, and ratios to a reference: the first "
        "file, or --against. An .onnx file of a binary network is timed with the native library, if that is built, and "
        "with stock onnxruntime. A .tflite runs in LCE's own process, at batch 1.",
    )
    p.usage = "bnn-itrd bench FILE... [--against FILE] [--threads N...] [--batch N...] [--repeats N] [--json]"
    p.add_argument("files", nargs="+", help="files written by bnn-itrd, or folders of runs or of their networks")
    p.add_argument(
        "--against",
        type=str,
        default=None,
        metavar="FILE",
        help="the reference, a teacher's .onnx file or the run with the teacher",
    )
    add_threads(p, several=True)
    p.add_argument("--batch", type=int, metavar="N", nargs="+", default=[1], help="images per call")
    p.add_argument("--repeats", type=int, default=40, help="number of turns")
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
    """Returns the exported file for a path, which may be a run's folder or a checkpoint, as in `predict`."""
    if path.is_file() and path.suffix != ".pt":
        return path
    from bnn_itrd.runs.finished.exported import find_exported

    return find_exported(path, say=say_note)


def _reference(path: Path) -> Path:
    """Returns the file to compare with; for a run's folder, the file of its teacher if there is one."""
    teacher = path / "teacher" / "teacher.onnx"
    return teacher if teacher.is_file() else _exported(path)
