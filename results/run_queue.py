"""Manages the folder of published results: it lists the planned trainings that are missing, and prints their commands.

    python results/run_queue.py [results] [--device gpu] [--commands] [--keep]

The plan is queue.yaml in the folder. Without options the script prints the trainings that the folder does not have yet.
`--commands` prints only their commands, for a shell. Each can be continued, so
``python results/run_queue.py --device gpu --commands | bash`` may be stopped and called again. `--keep` copies the
finished ones from runs/ into the folder: small files, and half-precision weights if the queue asks for them. It also
writes QUEUE.md and the table in README.md anew.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from bnn_itrd import recipes
from bnn_itrd.config.parse import parse, parser, run_config
from bnn_itrd.config.run import RunConfig, member_config
from bnn_itrd.config.trees import differences, to_dict
from bnn_itrd.console import print_table
from bnn_itrd.errors import UserError, unknown
from bnn_itrd.experiments.table import markdown_table, summarise_runs
from bnn_itrd.files import write_file
from bnn_itrd.runs.comparison_file import read_comparison
from bnn_itrd.runs.half_precision import save_half_precision
from bnn_itrd.yaml_files import read_yaml

__all__ = ["KEPT", "Block", "Run", "command", "configuration", "done", "keep", "main", "minutes", "read", "render"]

# The files of a training that are copied into the results. The picture of the curves is left out, because metrics.csv
# has its numbers. comparison.json is copied last, so a folder that has it is complete.
KEPT = ("config.yaml", "environment.json", "metrics.csv", "student.onnx", "teacher.onnx", "comparison.json")
# A rough time for a run's start, compilation, export and validation.
_FIXED_MINUTES = 1.0
_TRAINING_IMAGES = 50_000
_CLASSES = {"cifar10": 10, "cifar100": 100}


@dataclass(frozen=True)
class Run:
    """One planned training.

    name: its folder in results/ and in runs/; member: the network of the recipe that is trained; images_per_s: the
    assumed speed; root: the data set's file; teacher: the name of another entry of the queue, None if there is none;
    fields: configuration fields that replace the recipe's; weights: whether its weights are copied into the results.
    """

    name: str
    recipe: str
    member: str
    seed: int
    images_per_s: float
    root: str
    teacher: str | None = None
    fields: tuple[tuple[str, Any], ...] = ()
    weights: bool = False


@dataclass(frozen=True)
class Block:
    """A section of the queue: planned trainings in order, with a title and the reason for them; device: gpu or cpu."""

    title: str
    why: str
    device: str
    runs: tuple[Run, ...]


def _runs(entry: dict[str, Any], images_per_s: float, paths: dict[str, str]) -> Iterator[Run]:
    """Yields the trainings of an entry of queue.yaml, one for each seed.

    images_per_s: the speed if the entry has none; paths: data set's name -> its file.
    """
    data = entry["name"].partition("-")[0]
    for seed in entry["seeds"]:
        yield Run(
            name=f"{entry['name']}-s{seed}",
            recipe=entry["recipe"],
            member=entry["member"],
            seed=seed,
            images_per_s=float(entry.get("images_per_s", images_per_s)),
            root=paths[data],
            teacher=entry.get("teacher"),
            fields=tuple((entry.get("fields") or {}).items()),
            weights=bool(entry.get("weights", False)),
        )


def read(path: Path) -> list[Block]:
    """Reads a queue.yaml and returns its blocks.

    Raises UserError if the file is missing or not a queue, two trainings have the same name, or a teacher does not come
    before its student.
    """
    if not path.is_file():
        raise UserError(f"there is no {path}: name a folder of results that has one")
    tree = read_yaml(path)
    try:
        blocks = [
            Block(
                block["title"],
                " ".join(block["why"].split()),
                block["device"],
                tuple(run for entry in block["runs"] for run in _runs(entry, block["images_per_s"], tree["paths"])),
            )
            for block in tree["blocks"]
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not a queue of runs: {error!r}") from error
    seen: set[str] = set()
    for run in (run for block in blocks for run in block.runs):
        if run.name in seen:
            raise UserError(f"{path}: two runs are called {run.name}")
        if run.teacher is not None and run.teacher not in seen:
            raise UserError(f"{path}: {run.name} needs its teacher {run.teacher}: put that before it")
        seen.add(run.name)
    return blocks


def _arguments(run: Run) -> list[str]:
    """Returns the arguments of `bnn-itrd train` for a planned training."""
    teacher = [] if run.teacher is None else [f"--teacher=runs/{run.teacher}/teacher"]
    return [
        run.recipe,
        f"--member={run.member}",
        f"--out=runs/{run.name}",
        *teacher,
        f"--data.root={run.root}",
        f"--seed={run.seed}",
        *(f"--{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in run.fields),
    ]


def command(run: Run) -> str:
    """Returns the shell command of a planned training."""
    return shlex.join(["bnn-itrd", "train", *_arguments(run)])


@cache
def configuration(run: Run) -> RunConfig:
    """Returns the configuration of a planned training. Raises UserError if its command would be refused."""
    recipe, *rest = _arguments(run)
    config, _ = run_config("train", "", recipes.read(recipe), rest, extra={"out": "", "member": ""})
    member_config(config, run.member)
    return config


def minutes(run: Run) -> float:
    """Returns the minutes that a training should take, from its number of images and the assumed speed."""
    config = configuration(run)
    member = member_config(config, run.member)
    stage = 0 if member.scheme is None else member.scheme.first_stage_epochs
    images = _TRAINING_IMAGES * (1 - config.data.val_fraction)
    if config.data.per_class is not None and not config.data.unlabelled:
        images = min(images, _CLASSES[config.data.name] * config.data.per_class)
    images *= member.train.epochs + stage
    return images / run.images_per_s / 60 + _FIXED_MINUTES


def done(run: Run, results: Path) -> bool:
    """Returns whether the folder of results has a training, with all its epochs."""
    path = results / run.name / "comparison.json"
    if not path.is_file():
        return False
    last = read_comparison(path)["models"][-1:]
    return [(model["name"], len(model.get("curve") or [])) for model in last] == [(run.member, _epochs(run))]


def _epochs(run: Run) -> int:
    """Returns the number of epochs of a planned training, without those of a first stage."""
    return member_config(configuration(run), run.member).train.epochs


def keep(run: Run, runs: Path, results: Path) -> bool:
    """Copies the files of a finished training from `runs` to `results`; returns False if it is not finished.

    Raises UserError if it was trained with other settings than the queue's.
    """
    source = runs / run.name / run.member
    if not (source / "comparison.json").is_file() or not (source / "metrics.csv").is_file():
        return False
    if len((source / "metrics.csv").read_text().splitlines()) != _epochs(run) + 1:
        return False
    if lines := _strange(run, source / "config.yaml"):
        raise UserError(
            f"{source} is not kept: it was trained with other settings than the queue's: {'; '.join(lines)}"
        )
    if run.weights:
        save_half_precision(source / "last.pt", results / run.name / "last.pt")
    for name in KEPT:
        if (source / name).is_file():
            _copy(source / name, results / run.name / name)
    return True


def _copy(source: Path, target: Path) -> None:
    """Copies a file atomically: completely or not at all."""
    content = source.read_bytes()
    write_file(target, lambda file: file.write(content))


def _strange(run: Run, path: Path) -> list[str]:
    """Returns a line for each setting in a config.yaml that differs from the planned training."""
    if not path.is_file():
        return [f"no {path.name}"]
    given = to_dict(member_config(configuration(run), run.member))
    saved = read_yaml(path)
    if not isinstance(saved, dict):
        raise UserError(f"{path} is not the configuration of a run: it must be a mapping, got {type(saved).__name__}")
    # Which precision auto chose is known only from the run's folder.
    if given["train"]["precision"] == "auto" and isinstance(saved.get("train"), dict):
        given["train"]["precision"] = saved["train"].get("precision")
    return differences({key: value for key, value in saved.items() if key in given}, given)


def render(blocks: Sequence[Block], results: Path) -> str:
    """Returns the text of QUEUE.md: each planned training with its state, expected minutes and command."""
    runs = [run for block in blocks for run in block.runs]
    finished = sum(done(run, results) for run in runs)
    lines = [
        "# Queue",
        "",
        "Made from queue.yaml by `python results/run_queue.py --keep`; without it the script prints what is missing. "
        f"{finished} of {len(runs)} runs are done.",
        "",
        "The minutes are estimates: the number of images divided by the speed in queue.yaml, and one minute for start, "
        "compilation and export. Every command can be stopped and called again, and writes to runs/. Teachers stay "
        "there, because students of the same teacher need its weights.",
    ]
    for block in blocks:
        total = sum(minutes(run) for run in block.runs)
        lines += ["", f"## {block.title} ({block.device.upper()}, {total:.0f} minutes)", "", block.why, ""]
        for run in block.runs:
            state = "x" if done(run, results) else " "
            lines += [f"- [{state}] {run.name}, {minutes(run):.0f} min", "", f"      {command(run)}", ""]
        lines.pop()
    return "\n".join(lines) + "\n"


_TABLE = re.compile(r"(<!-- bnn-itrd compare results/\* --markdown -->\n)(?:\|.*\n)*")


def table(readme: str, folders: Sequence[Path]) -> str:
    """Returns the text of README.md with its table replaced by a new one.

    readme: the text, in which a comment with the command stands above the table; folders: those of the results.
    """
    return _TABLE.sub(lambda match: match[1] + markdown_table(summarise_runs(folders)) + "\n", readme)


def _update(blocks: Sequence[Block], runs: Path, results: Path) -> None:
    """Copies all newly finished trainings into the results, and writes QUEUE.md and README.md anew."""
    for run in (run for block in blocks for run in block.runs):
        try:
            if not done(run, results) and keep(run, runs, results):
                print(f"kept {results / run.name}")
        except UserError as error:  # a faulty one must not keep the others from being copied
            print(f"run_queue: {error}", file=sys.stderr)
    text = render(blocks, results)
    write_file(results / "QUEUE.md", lambda file: file.write(text.encode()))
    readme = results / "README.md"
    folders = sorted(path.parent for path in results.glob("*/comparison.json"))
    if readme.is_file() and folders:
        new = table(readme.read_text(), folders)
        write_file(readme, lambda file: file.write(new.encode()))


def _started(run: Run, runs: Path) -> str:
    """Returns how far a training is, as text; '-' if it has not begun."""
    path = runs / run.name / run.member / "metrics.csv"
    if not path.is_file():
        return "-"
    return f"epoch {len(path.read_text().splitlines()) - 1} of {_epochs(run)}"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the script with command line arguments (None: those of the process); returns 0, or 2 on wrong input."""
    p = parser("python results/run_queue.py", "List the planned runs that a folder of results does not have yet.")
    p.add_argument("results", nargs="?", default="results", help="folder of results with a queue.yaml")
    p.add_argument("--runs", default="runs", help="folder of the runs")
    p.add_argument("--device", default=None, help="only runs planned for gpu, or for cpu")
    p.add_argument("--commands", action="store_true", help="print only the commands")
    p.add_argument("--keep", action="store_true", help="copy finished runs into the results and rewrite its tables")
    try:
        args = parse(p, list(sys.argv[1:] if argv is None else argv))
        results, runs = Path(args.results), Path(args.runs)
        blocks = read(results / "queue.yaml")
        if args.device not in (None, "gpu", "cpu"):
            raise unknown("device", args.device, ["gpu", "cpu"])
        if args.keep:
            _update(blocks, runs, results)
        chosen = [run for block in blocks if args.device in (None, block.device) for run in block.runs]
        missing = [run for run in chosen if not done(run, results)]
    except UserError as error:
        print(f"run_queue: {error}", file=sys.stderr)
        return 2
    if args.commands:
        print("\n".join(command(run) for run in missing))
    elif missing:
        rows = [
            {"run": run.name, "state": _started(run, runs), "expected minutes": f"{minutes(run):.0f}"}
            for run in missing
        ]
        print_table(rows, f"{len(missing)} of {len(chosen)} runs are missing")
    else:
        print(f"all {len(chosen)} planned runs are done")
    return 0


if __name__ == "__main__":
    sys.exit(main())
