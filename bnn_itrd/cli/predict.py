"""The command ``bnn-itrd predict``, which classifies image files with an exported file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnn_itrd.cli.options import add_python, check_pythons, python_of, say_note
from bnn_itrd.config.parse import parse, parser
from bnn_itrd.errors import UserError

if TYPE_CHECKING:
    from bnn_itrd.export import Prediction

__all__ = ["command"]


def command(argv: Sequence[str]) -> int:
    """Runs ``predict FILE_OR_RUN IMAGE...``, which prints class names and probabilities; returns 0."""
    p = parser(
        "bnn-itrd predict",
        "Classify images with a file written by bnn-itrd, or with the file in a run's folder. The file records the "
        "size to which images are scaled, and how they are normalised. A .tflite runs in the interpreter of Larq "
        "Compute Engine (bnn-itrd validate --setup lce installs it), and a .qonnx.onnx in qonnx (--setup fpga).",
    )
    p.usage = "bnn-itrd predict FILE_OR_RUN IMAGE_OR_FOLDER... [--top N]"
    p.add_argument("file", help="a file, the folder of a run, or of one of its networks")
    p.add_argument("images", nargs="+", help="image files, or folders of image files")
    p.add_argument("--top", type=int, default=3, help="number of classes to show")
    add_python(p, "lce")
    add_python(p, "fpga")
    args = parse(p, argv)
    if args.top < 1:
        raise UserError(f"--top must be >= 1, got {args.top}")
    from bnn_itrd.export.runtime.errors import ImageError
    from bnn_itrd.export.runtime.images import photo_files

    try:
        photos = photo_files([Path(image) for image in args.images], say=say_note)
    except ImageError as error:
        raise UserError(str(error)) from error
    unusable: list[Exception] = []
    for result in _predictions(Path(args.file), photos, args, unusable.append):
        print(result)
    if unusable:  # the results of the other images have been printed
        raise UserError("\n".join(map(str, unusable)))
    return 0


def _predictions(path: Path, photos: list[Path], args: Any, skipped: Callable[[Exception], None]) -> list[Prediction]:
    """Classifies image files with an exported file, or with the one in the folder of a run.

    args: the parsed options. skipped: a function that is called with the error of each image that cannot be used.
    """
    if _is_plain(path):
        # An .onnx file runs without torch, whose import would take longer than all the rest.
        from bnn_itrd.export import classify_images

        check_pythons(args, [])
        return classify_images(path, photos, top=args.top, skipped=skipped)
    from bnn_itrd.deploy.photos import classify_photos
    from bnn_itrd.deploy.targets import target_of
    from bnn_itrd.runs.finished.exported import find_exported

    file = find_exported(path, say=say_note)
    runtime = target_of(file).runtime
    check_pythons(args, [runtime])
    return classify_photos(file, photos, top=args.top, python=python_of(args, runtime), skipped=skipped)


def _is_plain(path: Path) -> bool:
    """Returns whether a path is a file that onnxruntime runs, and not the folder of a run or another target's file."""
    return path.is_file() and path.suffix == ".onnx" and not path.name.endswith((".qonnx.onnx", ".finn.onnx"))
