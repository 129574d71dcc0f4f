"""The table over seeds: what becomes one row, and the README's table is that of the folders."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from helpers.results import RESULTS, queue

from bnn_itrd.errors import UserError
from bnn_itrd.experiments.table import markdown_table, summarise_runs


def model(name: str, top1: float, **more: Any) -> dict[str, Any]:
    method = "teacher" if name == "teacher" else name
    return {
        "name": name, "network": "resnet18", "method": method, "epochs": 600, "top1_last": top1,
        "top1_best": top1 + 0.25, "best_split": "test", "bytes": 1000, "compression": 30.0, "ms_per_image": 1.0,
        "agreement_with_teacher": 95.0, "curve": [{"epoch": 600, "test_top1": 90.0}],
        "trained_on": {"device": "NVIDIA H200"}, **more,
    }  # fmt: skip


def folder(root: Path, name: str, models: list[dict[str, Any]], **config: Any) -> Path:
    (root / name).mkdir()
    comparison = {"dataset": {"name": "cifar10"}, "models": models, "config": config}
    (root / name / "comparison.json").write_text(json.dumps(comparison))
    return root / name


def test_seeds_become_one_row(tmp_path: Path) -> None:
    teacher = model("teacher", 95.5, epochs=None, top1_best=None, trained_on=None)
    folders = [
        folder(tmp_path, f"cifar10-resnet18-recu-itrd-e600-s{seed}",
               [teacher, model("recu-itrd", top1, top1_best=top1 + 0.1 * seed, bytes=1000 + seed)],
               teacher="elsewhere", train={"seed": seed})
        for seed, top1 in enumerate((94.0, 94.3, 94.6))
    ]  # fmt: skip
    folders.append(folder(tmp_path, "cifar10-resnet18-recu-s3", [teacher, model("recu", 92.71)], train={"seed": 3}))
    reference, distilled, plain = summarise_runs(folders)
    assert distilled["method"] == "recu-itrd" and distilled["seeds"] == "0, 1, 2" and distilled["epochs"] == 600
    # 94.0, 94.3, 94.6: mean 94.3, squared deviations 0.09 + 0 + 0.09 over n - 1 = 2.
    assert distilled["top-1 last %"] == "94.30 ± 0.30" and math.sqrt(0.18 / 2) == pytest.approx(0.3)
    # 94.0, 94.4, 94.8
    assert distilled["top-1 best %"] == "94.40 ± 0.40" and distilled["published %"] == "94.1"
    assert distilled["device"] == "GPU (NVIDIA H200)" and distilled["ONNX bytes"] == "1,001"
    assert plain["seeds"] == "one (3)" and plain["top-1 last %"] == "92.71" and plain["published %"] == "92.8"
    # The teacher of four folders is one network; nothing is known of its training.
    assert reference["method"] == "teacher" and reference["seeds"] == "one (?)" and reference["device"] == "-"


def test_the_epochs_of_a_first_stage_count(tmp_path: Path) -> None:
    networks = [model("teacher", 95.5, epochs=200), model("recu", 92.0, epochs=400), model("recu-kd", 93.0, epochs=400)]
    (tmp_path / "mine").mkdir()
    run = folder(tmp_path / "mine", "two_stage", networks, scheme={"first_stage_epochs": 200}, train={"seed": 0})
    assert [row["epochs"] for row in summarise_runs([run])] == [200, 600, 600]


def test_variants_lengths_devices_and_held_out_images_are_rows_of_their_own(tmp_path: Path) -> None:
    seed = {"train": {"seed": 0}}
    held = model("recu", 92.0, best_split="val", top1_best=90.5)
    folders = [
        folder(tmp_path, "cifar10-resnet18-recu-s0", [model("recu", 92.0)], **seed),
        folder(tmp_path, "cifar10-resnet18-recu-e200-s0", [model("recu", 92.0, epochs=200)], **seed),
        folder(tmp_path, "cifar10-resnet18-recu-ema-s0", [model("recu", 92.0)], **seed),
        folder(tmp_path, "cifar10-resnet18-recu-val-s0", [held], **seed),
        folder(tmp_path, "mine", [model("recu", 92.0, trained_on={"device": "cpu"})], **seed),
    ]
    rows = summarise_runs(folders)
    shown = [(r["method"], r["epochs"], r["images"], r["device"].split()[0], r["top-1 last %"]) for r in rows]
    assert shown == [
        ("recu", 600, "test", "GPU", "92.00"),
        ("recu", 200, "test", "GPU", "92.00"),
        ("recu-ema", 600, "test", "GPU", "92.00"),
        # The test images' 92 are not shown: choices are made by the curve of the held-out ones.
        ("recu", 600, "held out", "GPU", "90.00"),
        ("recu", 600, "test", "CPU", "92.00"),
    ]
    assert [r["published %"] for r in rows] == ["92.8", "92.8", "-", "92.8", "92.8"]


@pytest.mark.parametrize("method", ["teacher", "teacher-cutout"])
def test_a_teacher_with_a_folder_of_its_own_is_shown_from_there(method: str, tmp_path: Path) -> None:
    again = model("teacher", 95.49, epochs=None, top1_best=None, trained_on=None)
    folders = [
        folder(tmp_path, "cifar10-resnet18-recu-s1", [again, model("recu", 92.0)], teacher="x", train={"seed": 1}),
        folder(tmp_path, f"cifar10-resnet18-{method}-s7", [model("teacher", 95.5)], teacher_train={"seed": 7}),
    ]
    rows = summarise_runs(folders)
    assert [(r["method"], r["seeds"], r["top-1 last %"]) for r in rows] == [
        (method, "one (7)", "95.50"), ("recu", "one (1)", "92.00"),
    ]  # fmt: skip


def test_damaged_folders_are_told(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# Results\n")
    whole = folder(tmp_path, "whole", [model("recu", 92.0)])
    assert len(summarise_runs([tmp_path / "README.md", whole])) == 1
    broken = model("recu", 92.0)
    del broken["top1_last"]
    with pytest.raises(UserError, match=r"broken.*is not a comparison of bnn-itrd: models\[0\].top1_last is missing"):
        summarise_runs([whole, folder(tmp_path, "broken", [broken])])
    with pytest.raises(UserError, match=r"is not a comparison of bnn-itrd"):
        summarise_runs([tmp_path / "README.md"])


def test_the_readmes_table_is_that_of_the_folders() -> None:
    folders = sorted(path.parent for path in RESULTS.glob("*/comparison.json"))
    text = (RESULTS / "README.md").read_text()
    rows = summarise_runs(folders)
    assert markdown_table(rows) in text and queue.table(text, folders) == text
    # The same folders read by hand.
    for path in folders:
        own = json.loads((path / "comparison.json").read_text())["models"][-1]
        seed = own["name"], f"{own['top1_last']:.2f}"
        assert any((r["method"], r["top-1 last %"]) == seed for r in rows) or len(folders) > len(rows)
        assert (path / "config.yaml").is_file() and (path / "metrics.csv").is_file()
        assert sum(f.stat().st_size for f in path.iterdir() if f.name != "last.pt") < 4e6
