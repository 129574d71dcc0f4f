"""Functions that write folders of trained networks for the tests of `bnn-itrd table`."""

from __future__ import annotations

import csv
import json
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from bnn_itrd import recipes
from bnn_itrd.config.parse import run_config
from bnn_itrd.config.run import RunConfig, member_config
from bnn_itrd.config.trees import to_dict

# The options of the teacher of small tables: all images, 10 epochs.
SMALL_TEACHER = (
    *("--data.per_class=null", "--teacher_train.epochs=10"),
    *("--teacher_train.milestones=[6,8,9]", "--teacher_train.eval_every=10"),
)


@cache
def config_of(recipe: str, *words: str) -> RunConfig:
    return run_config("run", "", recipes.read(recipe), words, extra={})[0]


def write_run(
    folder: Path,
    recipe: str,
    member: str,
    top1: float,
    *words: str,
    epochs: int | None = None,
    seed: int = 0,
    teacher: Path | None = None,
    **metrics: Any,
) -> Path:
    """Writes config.yaml and metrics.csv of a trained network into a folder, and returns the folder.

    words: options that replace fields of the recipe; epochs: the number of finished epochs, None for all; metrics:
    further columns; teacher: the folder of the teacher, which the student's config.yaml then describes.
    """
    made = member_config(config_of(recipe, *words), member)
    folder.mkdir(parents=True)
    tree = {**to_dict(made), "classes": ["a"], "train_images": 50_000}
    tree["train"]["seed"] = seed
    if teacher is not None:
        of = yaml.safe_load((teacher / "config.yaml").read_text())
        scored = float((teacher / "metrics.csv").read_text().splitlines()[-1].split(",")[3])
        tree["teacher"] = {"network": of["network"]["name"], "top1": scored, "data": of["data"]}
    (folder / "config.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(tree))))
    last = made.train.epochs if epochs is None else epochs
    row = {"epoch": last, "loss": 1.0, "split": "test", "top1": top1, "top5": top1 + 5, **metrics}
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, row)
        writer.writeheader()
        writer.writerow(row)
    return folder
