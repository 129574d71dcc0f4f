"""The commands of `bnn-itrd`: each reads its arguments, calls one part of the package, and prints what came of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnn_itrd import recipes as recipe_files
from bnn_itrd.errors import UserError
from bnn_itrd.options import _parse, data_config, parser, run_config

if TYPE_CHECKING:
    from bnn_itrd.config import RunConfig
    from bnn_itrd.data import ImageData

__all__ = [
    "compare",
    "evaluate",
    "export",
    "predict",
    "recipes",
    "run",
    "summary",
    "train",
    "validate",
]


def _print_table(rows: Sequence[dict[str, str]], title: str = "") -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title or None, box=box.SIMPLE_HEAD, title_justify="left")
    for i, column in enumerate(rows[0] if rows else []):
        table.add_column(column, justify="left" if i == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*row.values())
    # Where there is no terminal to measure, a table is not folded at 80 columns.
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    console.print(table)


def _recipe(
    command: str, description: str, argv: Sequence[str], extra: dict[str, str]
) -> tuple[str, RunConfig, dict[str, Any]]:
    if argv and not argv[0].startswith("-"):
        name, rest = argv[0], list(argv[1:])
        config, own = run_config(command, description, recipe_files.read(name), rest, extra=extra)
        return name, config, own
    if any(token in ("-h", "--help") for token in argv):
        run_config(command, description, {}, argv, extra=extra)
    raise UserError(f"bnn-itrd {command} needs a recipe: one of {', '.join(recipe_files.names())}, or a .yaml file")


def _out(own: dict[str, Any], name: str) -> Path:
    return Path(own["out"] or Path("runs") / Path(name).stem)


def run(argv: Sequence[str]) -> int:
    """``run RECIPE --out DIR``: the whole road."""
    name, config, own = _recipe(
        "run",
        "Train a teacher and its binary students, export each to ONNX, hold every file against its network on the "
        "test images, and compare: comparison.json, report.html and a table. It downloads nothing. The same command "
        "continues a run that was interrupted.",
        argv,
        {"out": "folder of the run; runs/RECIPE by default"},
    )
    from bnn_itrd.comparison import table_rows
    from bnn_itrd.run import run as run_recipe

    out = _out(own, name)
    comparison = run_recipe(config, out, recipe=name)
    if comparison is not None:
        _print_table(
            table_rows(comparison),
            f"{comparison['dataset']['name']}: {comparison['dataset']['test']} test images",
        )
        _print_agreement(comparison)
        print(f"{out}/report.html  {out}/comparison.json")
    return 0


def _print_agreement(comparison: dict[str, Any]) -> None:
    for model in comparison["models"]:
        for artefact in model["artefacts"]:
            odd = artefact["disagreements"]
            if odd:
                shown = ", ".join(f"image {d['index']} ({d['torch']} -> {d['file']})" for d in odd[:8])
                more = f" and {len(odd) - 8} more" if len(odd) > 8 else ""
                print(f"{model['name']}/{artefact['file']} differs from PyTorch on {shown}{more}")


def train(argv: Sequence[str]) -> int:
    """``train RECIPE --member NAME --out DIR``: one network of a recipe."""
    name, config, own = _recipe(
        "train",
        "Train one member of a recipe in the folder DIR/MEMBER: 'teacher', or a student. A student takes its teacher "
        "from --teacher PATH, or from DIR/teacher where that was trained before.",
        argv,
        {"out": "folder of the run; runs/RECIPE by default", "member": "teacher, or the name of a student"},
    )
    from bnn_itrd.comparison import table_rows
    from bnn_itrd.run import run as run_recipe

    member = own["member"]
    if member is None:
        raise UserError(f"--member is missing: one of {', '.join(['teacher', *config.students])}")
    comparison = run_recipe(config, _out(own, name), recipe=name, only=member)
    if comparison is not None:
        _print_table(table_rows(comparison))
    return 0


def _data(identity: dict[str, Any] | None, given: dict[str, Any]) -> ImageData:
    """The data set a network was trained on, with what the command line says instead."""
    from bnn_itrd.config import DataConfig
    from bnn_itrd.data import load_data

    saved = dict((identity or {}).get("data") or {})
    known = DataConfig.__dataclass_fields__
    fields = {k: v for k, v in saved.items() if k in known}
    if "name" in given and given["name"] != fields.get("name"):
        fields.pop("root", None)
    return load_data(DataConfig(**{**fields, **given}))


def evaluate(argv: Sequence[str]) -> int:
    """``evaluate PATH [--data ...]``: accuracy on the test images, in float32."""
    p = parser("bnn-itrd evaluate", "Accuracy of a trained network (run folder, checkpoint) or an .onnx file.")
    p.usage = "bnn-itrd evaluate PATH [--best true] [--data NAME] [--data.root ROOT] [--json true]"
    p.add_argument("path", help="run folder, checkpoint or .onnx file")
    p.add_argument("--best", type=bool, default=False, help="the epoch with the best top-1, not the last")
    p.add_argument("--json", type=bool, default=False, help="print JSON")
    args, given = data_config(p, argv)
    import torch

    from bnn_itrd.comparison import test_tensors
    from bnn_itrd.evaluation import score
    from bnn_itrd.export import predict_file, predict_model, session

    path = Path(args.path)
    if path.suffix == ".onnx":
        data = _data(_identity_of_file(path), given)
        images, labels = test_tensors(data.test)
        _check_fits(path, data)
        logits = predict_file(session(path), images)
    else:
        from bnn_itrd.members import load_member

        model, identity, file = load_member(path, best=args.best)
        data = _data(identity, given)
        images, labels = test_tensors(data.test)
        logits = predict_model(model, images)
        path = file
    result = score(torch.from_numpy(logits), labels)
    values = {
        "path": str(path),
        "images": len(labels),
        "top1": result.top1,
        "top5": result.top5,
        "loss": result.loss,
    }
    if args.json:
        print(json.dumps(values, indent=1))
    else:
        print(
            f"{path}: top-1 {result.top1:.2f} %, top-5 {result.top5:.2f} %, cross-entropy {result.loss:.4f} "
            f"on {len(labels)} test images of {data.name}"
        )
    return 0


def _identity_of_file(path: Path) -> dict[str, Any] | None:
    """What the run's config.yaml beside an exported file says of it, where there is one."""
    import yaml

    config = path.parent / "config.yaml"
    if not config.is_file():
        return None
    tree = yaml.safe_load(config.read_text())
    return tree if isinstance(tree, dict) else None


def _check_fits(path: Path, data: ImageData) -> None:
    from bnn_itrd.export import read_metadata

    metadata = read_metadata(path)
    for key, have in (("input_shape", list(data.input_shape)), ("classes", list(data.classes))):
        want = metadata.get(key)
        if want is not None and want != have:
            raise UserError(f"{path} was made for {key} {want}, but data set {data.name} has {have}")


def export(argv: Sequence[str]) -> int:
    """``export PATH --out FILE``: a trained network to portable ONNX."""
    p = parser("bnn-itrd export", "Write a trained network as a portable ONNX file, 1 bit per binary weight.")
    p.usage = "bnn-itrd export PATH [--out FILE] [--best true] [--uint8 true] [--data NAME] [--data.root ROOT]"
    p.add_argument("path", help="run folder or checkpoint")
    p.add_argument("--out", type=str, default=None, help="the file; student.onnx beside the checkpoint by default")
    p.add_argument("--best", type=bool, default=False, help="the epoch with the best top-1, not the last")
    p.add_argument(
        "--uint8",
        type=bool,
        default=False,
        help="uint8 images in: the file normalises them itself (for boards)",
    )
    args, given = data_config(p, argv)
    from bnn_itrd.checkpoint import file_hash
    from bnn_itrd.export import to_onnx
    from bnn_itrd.members import load_member

    model, identity, file = load_member(Path(args.path), best=args.best)
    name = "student.onnx" if identity.get("scheme") else "teacher.onnx"
    out = Path(args.out) if args.out else file.parent / name
    if out.suffix != ".onnx":
        out = out / name
    out.parent.mkdir(parents=True, exist_ok=True)
    data = _data(identity, given)
    to_onnx(
        model,
        out,
        input_shape=data.input_shape,
        normalization=(data.mean, data.std),
        bake_normalization=args.uint8,
        classes=data.classes,
        metadata={"member": identity["name"], "dataset": data.name, "source_sha256": file_hash(file)},
    )
    print(f"{out}: {out.stat().st_size:,} bytes")
    return 0


def validate(argv: Sequence[str]) -> int:
    """``validate FILE --data ...``: the file against its network; exit 1 past the stated limits."""
    p = parser(
        "bnn-itrd validate",
        "Run an .onnx file and the network it came from on the test images and compare them. Without a network (only "
        "the file was kept), the file's accuracy is compared with the row of comparison.json beside it.",
    )
    p.usage = "bnn-itrd validate FILE [--checkpoint PATH] [--data NAME] [--data.root ROOT] [--min_agreement PERCENT]"
    p.add_argument("file", help=".onnx file written by bnn-itrd")
    p.add_argument("--checkpoint", type=str, default=None, help="the network; last.pt beside the file by default")
    p.add_argument("--min_agreement", type=float, default=99.9, help="percent of images with the same class, at least")
    p.add_argument(
        "--max_difference",
        type=float,
        default=None,
        help="largest difference of a logit, at most; no limit by default",
    )
    p.add_argument("--threads", type=int, default=1, help="of onnxruntime")
    p.add_argument("--images", type=int, default=None, help="only so many test images, from the first")
    p.add_argument("--json", type=bool, default=False, help="print JSON")
    args, given = data_config(p, argv)
    from bnn_itrd.comparison import test_tensors
    from bnn_itrd.export import session

    path = Path(args.file)
    opened = session(path, threads=args.threads)
    _check_source(path, args.checkpoint)
    data = _data(_identity_of_file(path), given)
    _check_fits(path, data)
    images, labels = test_tensors(data.test)
    if args.images is not None:
        images, labels = images[: args.images], labels[: args.images]
    checkpoint = Path(args.checkpoint) if args.checkpoint else path.parent / "last.pt"
    if args.checkpoint or checkpoint.is_file():
        return _validate_against(checkpoint, opened, path, data, images, labels, args)
    return _validate_row(path, opened, data, images, labels, args)


def _check_source(path: Path, checkpoint: str | None) -> None:
    """Says so where the file was exported from another checkpoint than the one it is held against."""
    from bnn_itrd.checkpoint import file_hash
    from bnn_itrd.export import read_metadata

    source = read_metadata(path).get("source_sha256")
    file = Path(checkpoint) if checkpoint else path.parent / "last.pt"
    if source and file.is_file() and file_hash(file) != source:
        print(f"note: {path} was exported from another state of {file}", file=sys.stderr)


def _raw(data: ImageData, count: int) -> Any:
    import numpy as np

    return np.stack([data.test.raw(i).transpose(2, 0, 1) for i in range(count)])


def _validate_against(
    checkpoint: Path, opened: Any, path: Path, data: ImageData, images: Any, labels: Any, args: Any
) -> int:
    from bnn_itrd.export import validate as hold_against
    from bnn_itrd.members import load_member

    model, _, file = load_member(checkpoint)
    raw = _raw(data, len(images)) if opened.get_inputs()[0].type == "tensor(uint8)" else None
    result = hold_against(model, opened, images, raw_images=raw, labels=labels.numpy(), threads=args.threads)
    agreement = 100 * result.argmax_agreement
    failed = []
    if agreement < args.min_agreement:
        failed.append(f"agreement {agreement:.3f} % is below {args.min_agreement} %")
    if args.max_difference is not None and result.max_difference > args.max_difference:
        failed.append(f"largest difference {result.max_difference:.3g} is above {args.max_difference:.3g}")
    assert result.top1_model is not None and result.top1_file is not None
    values = {
        "file": str(path),
        "checkpoint": str(file),
        "images": result.images,
        "top1_pytorch": 100 * result.top1_model,
        "top1_file": 100 * result.top1_file,
        "agreement": agreement,
        "max_difference": result.max_difference,
        "median_difference": result.median_difference,
        "disagreements": [d._asdict() for d in result.disagreements],
        "failed": failed,
    }
    if args.json:
        print(json.dumps(values, indent=1))
    else:
        row = {
            "file": str(path),
            "images": f"{result.images:,}",
            "top-1 PyTorch %": f"{100 * result.top1_model:.2f}",
            "top-1 file %": f"{100 * result.top1_file:.2f}",
            "same class %": f"{agreement:.3f}",
            "largest difference": f"{result.max_difference:.2e}",
            "median difference": f"{result.median_difference:.2e}",
        }
        _print_table([row])
        for d in result.disagreements[:10]:
            names = data.classes
            print(
                f"image {d.index}: PyTorch says {names[d.model_class]}, the file {names[d.file_class]} "
                f"(PyTorch's margin {d.margin:.2e})"
            )
        for line in failed:
            print(f"FAILED: {line}")
    return 1 if failed else 0


def _validate_row(path: Path, opened: Any, data: ImageData, images: Any, labels: Any, args: Any) -> int:
    """The file alone: its accuracy against the row that was recorded when it was made."""
    import torch

    from bnn_itrd.evaluation import score
    from bnn_itrd.export import predict_file

    raw = _raw(data, len(images)) if opened.get_inputs()[0].type == "tensor(uint8)" else images
    result = score(torch.from_numpy(predict_file(opened, raw)), labels)
    recorded = _recorded_top1(path)
    failed = []
    if recorded is not None and len(images) == len(data.test) and abs(result.top1 - recorded) > 0.1:
        failed.append(f"top-1 {result.top1:.2f} % is not the recorded {recorded:.2f} %")
    values = {
        "file": str(path),
        "images": len(images),
        "top1_file": result.top1,
        "top1_recorded": recorded,
        "failed": failed,
    }
    if args.json:
        print(json.dumps(values, indent=1))
    else:
        row = {
            "file": str(path),
            "images": f"{len(images):,}",
            "top-1 file %": f"{result.top1:.2f}",
            "top-1 recorded %": "-" if recorded is None else f"{recorded:.2f}",
        }
        _print_table([row])
        print("no checkpoint beside the file: its network was not run (--checkpoint PATH names one)")
        for line in failed:
            print(f"FAILED: {line}")
    return 1 if failed else 0


def _recorded_top1(path: Path) -> float | None:
    record = path.parent / "comparison.json"
    if not record.is_file():
        return None
    for model in json.loads(record.read_text())["models"]:
        for artefact in model.get("artefacts") or []:
            if artefact["file"] == path.name:
                return float(artefact["top1"])
    return None


def predict(argv: Sequence[str]) -> int:
    """``predict FILE IMAGE...``: class names and probabilities."""
    p = parser("bnn-itrd predict", "Classify image files with an .onnx file written by bnn-itrd.")
    p.add_argument("file", help=".onnx file")
    p.add_argument("images", nargs="+", help="image files")
    p.add_argument("--top", type=int, default=3, help="how many classes to show")
    args = _parse(p, argv)
    from bnn_itrd.predict import predict as classify

    for result in classify(Path(args.file), [Path(i) for i in args.images], top=max(1, args.top)):
        guesses = ", ".join(
            f"{name} {100 * share:.1f} %" for name, share in zip(result.classes, result.probabilities, strict=True)
        )
        print(f"{result.path}: {guesses}")
    return 0


def summary(argv: Sequence[str]) -> int:
    """``summary WHAT``: a recipe's teacher and student, or a trained network."""
    p = parser(
        "bnn-itrd summary",
        "Layers, shapes, bits, MACs and bytes: a recipe's teacher and student, or a trained run.",
    )
    p.add_argument("what", help="recipe, run folder or checkpoint")
    p.add_argument("--classes", type=int, default=10, help="a recipe's number of classes")
    args = _parse(p, argv)
    from bnn_itrd.models import summary as describe

    if Path(args.what).exists() and not args.what.endswith((".yaml", ".yml")):
        from bnn_itrd.members import load_member

        print(describe(load_member(args.what)[0]))
        return 0
    from bnn_itrd.networks import build

    config, _ = run_config("summary", "", recipe_files.read(args.what), [], extra={})
    digits = config.data.name == "digits"
    size = config.data.image_size or (8 if digits else 32)
    shape = (1 if digits else 3, size, size)
    for title, scheme in (("teacher", None), ("student", config.scheme)):
        model = build(config.network, scheme, num_classes=args.classes, input_shape=shape)
        print(f"{title}: {config.network.name}, input {'x'.join(map(str, shape))}\n{describe(model)}\n")
    return 0


def compare(argv: Sequence[str]) -> int:
    """``compare DIR...``: one table of several runs."""
    p = parser("bnn-itrd compare", "One table of several runs: folders that hold a comparison.json.")
    p.add_argument("folders", nargs="+", help="run folders")
    p.add_argument("--json", type=bool, default=False, help="print JSON")
    p.add_argument("--markdown", type=bool, default=False, help="print a Markdown table")
    args = _parse(p, argv)
    from bnn_itrd.collect import collect, markdown

    rows = collect([Path(f) for f in args.folders])
    if args.json:
        print(json.dumps(rows, indent=1))
    elif args.markdown:
        print(markdown(rows))
    else:
        _print_table([{k: str(v) for k, v in row.items()} for row in rows])
    return 0


def recipes(argv: Sequence[str]) -> int:
    """``recipes``: names and purposes."""
    width = max(len(name) for name in recipe_files.names())
    for name in recipe_files.names():
        print(f"{name.ljust(width)}  {recipe_files.describe(name)}")
    return 0
