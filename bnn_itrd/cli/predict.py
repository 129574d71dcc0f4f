"""``bnn-itrd predict`` classifies image files with an exported file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bnn_itrd.config.parse import parse, parser
from bnn_itrd.errors import UserError

__all__ = ["command"]


def command(argv: Sequence[str]) -> int:
    """``predict FILE IMAGE...``: class names and probabilities."""
    p = parser("bnn-itrd predict", "Classify image files with an .onnx file written by bnn-itrd.")
    p.add_argument("file", help=".onnx file")
    p.add_argument("images", nargs="+", help="image files")
    p.add_argument("--top", type=int, default=3, help="how many classes to show")
    args = parse(p, argv)
    from bnn_itrd.export import ImageError, classify_images

    try:
        results = classify_images(Path(args.file), [Path(i) for i in args.images], top=max(1, args.top))
    except ImageError as error:
        raise UserError(str(error)) from error
    for result in results:
        print(result)
    return 0
