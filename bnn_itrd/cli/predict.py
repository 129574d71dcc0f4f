"""``bnn-itrd predict`` classifies image files with an exported file."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnn_itrd.cli.options import add_python, python_of
from bnn_itrd.config.parse import parse, parser
from bnn_itrd.errors import UserError

if TYPE_CHECKING:
    from bnn_itrd.export import Prediction

__all__ = ["command"]


def command(argv: Sequence[str]) -> int:
    """``predict FILE_OR_RUN IMAGE...``: class names and probabilities."""
    p = parser(
        "bnn-itrd predict",
        "Classify images with a file written by bnn-itrd, or with that of a run's folder: each is brought to the "
        "file's size and normalised as it says. A .tflite runs in Larq Compute Engine's own interpreter and a "
        ".qonnx.onnx in qonnx (bnn-itrd validate --setup lce, or fpga).",
    )
    p.usage = "bnn-itrd predict FILE_OR_RUN IMAGE_OR_FOLDER... [--top N]"
    p.add_argument("file", help="a file, the folder of a run, or of one of its networks")
    p.add_argument("images", nargs="+", help="image files, or folders of them")
    p.add_argument("--top", type=int, default=3, help="how many classes to show")
    add_python(p, "lce")
    add_python(p, "fpga")
    args = parse(p, argv)
    if args.top < 1:
        raise UserError(f"top must be >= 1, got {args.top}")
    unusable: list[Exception] = []
    for result in _predictions(Path(args.file), [Path(image) for image in args.images], args, unusable.append):
        print(result)
    if unusable:  # the answers for the others are not lost with them
        raise UserError("\n".join(map(str, unusable)))
    return 0


def _predictions(path: Path, images: list[Path], args: Any, skipped: Callable[[Exception], None]) -> list[Prediction]:
    """What the file that a path means says of images and folders of them; skipped: is told of those it cannot use."""
    from bnn_itrd.export import classify_images

    if _is_plain(path) and all(image.is_file() for image in images):
        # They need no torch, whose import takes longer than all the rest.
        return classify_images(path, images, top=args.top, skipped=skipped)
    from bnn_itrd.deploy.photos import classify_photos, photo_files
    from bnn_itrd.deploy.targets import target_of
    from bnn_itrd.runs.finished.exported import find_exported

    file, told = find_exported(path)
    if told:
        print(f"note: {told}", file=sys.stderr)
    python = python_of(args, target_of(file).runtime)
    return classify_photos(file, photo_files(images), top=args.top, python=python, skipped=skipped)


def _is_plain(path: Path) -> bool:
    """Whether a path is a file that onnxruntime runs."""
    return path.is_file() and path.suffix == ".onnx" and not path.name.endswith((".qonnx.onnx", ".finn.onnx"))
