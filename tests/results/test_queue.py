"""Results: the table over seeds, the queue, the path of training that never waits, files that newcomers start from."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
import os
import shlex
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import write_npz
from PIL import Image
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import bnn_itrd.export
from bnn_itrd import load
from bnn_itrd.cli import main
from bnn_itrd.config import DistillConfig, ITRDConfig, KDConfig
from bnn_itrd.config.data import DataConfig
from bnn_itrd.config.network import NetworkConfig
from bnn_itrd.config.run import member_config
from bnn_itrd.config.scheme import SchemeConfig
from bnn_itrd.config.train import FabricConfig, LogConfig, TrainConfig
from bnn_itrd.config.trees import to_dict
from bnn_itrd.data.datasets import load_data
from bnn_itrd.errors import UserError
from bnn_itrd.experiments import curves as runs
from bnn_itrd.experiments.table import markdown_table, summarise_runs
from bnn_itrd.models import resnet8
from bnn_itrd.quant import BinaryConv2d
from bnn_itrd.runs.half_precision import save_half_precision
from bnn_itrd.runs.networks import build
from bnn_itrd.training.checkpoint import load_checkpoint, matching_state, save_checkpoint
from bnn_itrd.training.fabric import make_fabric
from bnn_itrd.training.metrics import read_metrics
from bnn_itrd.training.optimizer import MovingAverage
from bnn_itrd.training.trainer import Trainer

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results"


def _load_queue() -> Any:
    """results/run_queue.py, which is a script beside the results and no part of the package."""
    spec = importlib.util.spec_from_file_location("run_queue", RESULTS / "run_queue.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["run_queue"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


queue = _load_queue()
QUIET = LogConfig(tensorboard=False, progress=False)
CPU = FabricConfig(accelerator="cpu", threads=1)

# ---- the table


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


def test_a_teacher_with_a_folder_of_its_own_is_shown_from_there(tmp_path: Path) -> None:
    again = model("teacher", 95.49, epochs=None, top1_best=None, trained_on=None)
    folders = [
        folder(tmp_path, "cifar10-resnet18-recu-s1", [again, model("recu", 92.0)], teacher="x", train={"seed": 1}),
        folder(tmp_path, "cifar10-resnet18-teacher-s7", [model("teacher", 95.5)], teacher_train={"seed": 7}),
    ]
    rows = summarise_runs(folders)
    assert [(r["method"], r["seeds"], r["top-1 last %"]) for r in rows] == [
        ("teacher", "one (7)", "95.50"), ("recu", "one (1)", "92.00"),
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


# ---- the queue

BLOCKS = queue.read(RESULTS / "queue.yaml")
RUNS = [run for block in BLOCKS for run in block.runs]


def test_every_command_of_the_queue_would_start() -> None:
    classes = {"cifar10": 10, "cifar100": 100}
    built: dict[str, tuple[Any, int]] = {}
    for run in RUNS:
        words = shlex.split(queue.command(run))
        assert words[:3] == ["bnn-itrd", "train", run.recipe]
        config = queue.configuration(run)
        data, network, method = run.name.split("-", 2)
        assert (config.data.name, config.network.name) == (data, network) and method.startswith(run.member)
        member = queue.member_config(config, run.member)
        assert member.train.seed == run.seed and run.name.endswith(f"-s{run.seed}")
        total = member.train.epochs + (0 if member.scheme is None else member.scheme.first_stage_epochs)
        if "-e" in run.name:
            assert f"-e{total}-" in run.name
        assert ("-val-" in run.name) == (config.data.val_fraction == 0.1)
        built[repr((member.network, member.scheme, classes[data]))] = (member, classes[data])
        assert run.teacher is not None or not member.needs_teacher
        if run.teacher is not None:
            teacher = next(r for r in RUNS if r.name == run.teacher)
            assert config.teacher == f"runs/{teacher.name}/teacher" and teacher.name.startswith(f"{data}-{network}-")
            # A teacher that saw the held-out images would tell of them.
            assert queue.configuration(teacher).data.val_fraction == config.data.val_fraction
    for member, count in built.values():
        with torch.device("meta"):
            build(member.network, member.scheme, num_classes=count, input_shape=(3, 32, 32))


def test_the_papers_block_has_the_papers_settings() -> None:
    """Miles et al. 2022: SGD, 0.1, batch 256, 5 epochs of warm-up, weight decay 5e-4, tau 0.85 to 0.99."""
    rows = BLOCKS[3].runs
    block = [queue.configuration(run) for run in rows]
    assert [run.member for run in rows] == ["recu", "recu-kd", "recu-corr", "recu-itrd"]
    for config in block:
        t = config.train
        assert (t.optimizer, t.lr, t.batch_size, t.warmup, t.weight_decay) == ("sgd", 0.1, 256, 5.0, 5e-4)
        assert (config.scheme.tau_min, config.scheme.tau_max, config.network.per_conv) == (0.85, 0.99, None)
    itrd = block[3].students["recu-itrd"].itrd
    assert itrd is not None and (itrd.alpha, itrd.beta_corr, itrd.beta_mi) == (1.01, 2.0, 1.0)


def test_expected_minutes_are_the_arithmetic() -> None:
    by_name = {run.name: run for run in RUNS}
    # 400 epochs of 50,000 images at 33,200 a second; one minute besides.
    assert queue.minutes(by_name["cifar10-resnet18-recu-itrd-e400-s0"]) == pytest.approx(20_000_000 / 33_200 / 60 + 1)
    # 2 + 4 epochs of 45,000 at 400.
    assert queue.minutes(by_name["cifar10-resnet20-recu-itrd-two_stage-e6-val-s0"]) == pytest.approx(11.25 + 1)
    # 10 epochs of 15,000 at 130; where the others take part without labels, of all 45,000.
    few = by_name["cifar10-resnet20-recu-n15000-e10-val-s0"]
    assert queue.minutes(few) == pytest.approx(150_000 / 130 / 60 + 1)
    all_of_them = dataclasses.replace(few, fields=(*few.fields, ("data.unlabelled", True)))
    assert queue.minutes(all_of_them) == pytest.approx(450_000 / 130 / 60 + 1)


def test_a_block_on_a_gpu_fits_a_quarter_of_an_hour() -> None:
    """About 650 s of training; two blocks are of several quarters, as they say."""
    training = {
        block.title[0]: sum(queue.minutes(run) - 1 for run in block.runs) for block in BLOCKS if block.device == "gpu"
    }
    assert all(training[number] * 60 < 650 for number in "12347"), training


def test_the_results_stay_small() -> None:
    """What is kept of runs travels with the repository: at most 40 MB, most of it one student's weights."""
    assert sum(path.stat().st_size for path in RESULTS.rglob("*") if path.is_file()) < 40e6


def test_what_is_kept_was_trained_with_the_queues_settings() -> None:
    """The precision is the one that auto chose there."""
    for run in BLOCKS[0].runs:
        assert queue._strange(run, RESULTS / run.name / "config.yaml") == []
        config = queue.member_config(queue.configuration(run), run.member)
        assert config.train.precision == "auto" and run.name.endswith("-s0")


def test_queue_md_is_made_from_the_queue() -> None:
    assert (RESULTS / "QUEUE.md").read_text() == queue.render(BLOCKS, RESULTS)
    text = (RESULTS / "QUEUE.md").read_text()
    assert [line[6:].partition(",")[0] for line in text.splitlines() if line.startswith("- [")] == [
        r.name for r in RUNS
    ]


@pytest.fixture
def small_queue(tiny_npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of results with a queue of one run on tiny images, and no run yet."""
    monkeypatch.chdir(tmp_path)
    fields = {
        "data.image_size": 8, "network.name": "resnet8", "train.epochs": 2, "train.batch_size": 32,
        "train.compile": False, "train.warmup_epochs": 0, "train.precision": "32-true",
        "teacher_train.precision": "32-true", "log.progress": False, "log.tensorboard": False,
        "fabric.accelerator": "cpu", "fabric.threads": 1,
    }  # fmt: skip
    run = {
        "name": "cifar10-resnet8-recu",
        "recipe": "cifar10-resnet20",
        "member": "recu",
        "seeds": [3],
        "fields": fields,
    }
    block = {"title": "A block", "why": "to see", "device": "cpu", "images_per_s": 100, "runs": [run]}
    (tmp_path / "results").mkdir()
    text = json.dumps({"paths": {"cifar10": str(tiny_npz)}, "blocks": [block]})
    (tmp_path / "results" / "queue.yaml").write_text(text)
    (tmp_path / "results" / "README.md").write_text("# R\n\n<!-- bnn-itrd compare results/* --markdown -->\n\nend\n")
    return tmp_path


def test_a_queue_is_worked_off(small_queue: Path, capsys: pytest.CaptureFixture[str]) -> None:
    queued = small_queue / "results" / "queue.yaml"
    tree = json.loads(queued.read_text())
    tree["blocks"][0]["runs"][0]["weights"] = True
    queued.write_text(json.dumps(tree))
    assert queue.main([]) == 0
    assert "1 of 1 runs are missing" in capsys.readouterr().out
    assert queue.main(["--device", "gpu"]) == 0 and "all 0 runs" in capsys.readouterr().out
    assert queue.main(["--commands"]) == 0
    words = shlex.split(capsys.readouterr().out)
    assert main(words[1:]) == 0
    capsys.readouterr()
    assert queue.main(["--keep"]) == 0
    assert "all 1 runs are there" in capsys.readouterr().out
    kept = small_queue / "results" / "cifar10-resnet8-recu-s3"
    names = {path.name for path in kept.iterdir()}
    assert names == {"config.yaml", "environment.json", "metrics.csv", "comparison.json", "student.onnx", "last.pt"}
    run = small_queue / "runs" / "cifar10-resnet8-recu-s3" / "recu"
    stored = load_checkpoint(kept / "last.pt")["model"]
    assert sum(value.dtype == torch.float16 for value in stored.values()) >= 3, "of 6 binary layers"
    assert (kept / "last.pt").stat().st_size < 0.4 * (run / "last.pt").stat().st_size
    images = torch.randn(16, 3, 8, 8)
    assert torch.equal(load(kept)(images), load(run)(images)), "the same signs: the same network"
    with pytest.raises(UserError, match="is not the checkpoint of a training"):
        matching_state(kept / "last.pt", {})
    assert "- [x] cifar10-resnet8-recu-s3, 18 min" in (small_queue / "results" / "QUEUE.md").read_text()
    readme = (small_queue / "results" / "README.md").read_text()
    assert "| cifar10 | resnet8 | recu | 2 | CPU | one (3) | test |" in readme and readme.endswith("|\n\nend\n")
    # A run of other length is none.
    comparison = json.loads((kept / "comparison.json").read_text())
    comparison["models"][-1]["curve"].pop()
    (kept / "comparison.json").write_text(json.dumps(comparison))
    rows = read_metrics(small_queue / "runs" / "cifar10-resnet8-recu-s3" / "recu" / "metrics.csv")
    assert len(rows) == 2
    assert queue.main([]) == 0 and "epoch 2 of 2" in capsys.readouterr().out


def test_half_precision_keeps_every_sign(tmp_path: Path) -> None:
    """Weights so near their filter's mean that float16 would take half of them across it; and a teacher's kernels."""
    network = NetworkConfig("resnet8", width=0.25)
    identity = {
        "network": to_dict(network), "scheme": to_dict(SchemeConfig()), "classes": ["a", "b"], "input_shape": [3, 8, 8],
    }  # fmt: skip
    model = build(network, SchemeConfig(), num_classes=2, input_shape=(3, 8, 8))
    layers = [m for m in model.modules() if isinstance(m, BinaryConv2d)]
    for layer in layers:
        layer.weight.data = 1 + 1e-4 * torch.randn_like(layer.weight)
    rounded = [m.weight.half().float() for m in layers]
    crossed = [(w - w.mean((1, 2, 3), keepdim=True) >= 0) != (m.weight >= m.weight.mean((1, 2, 3), keepdim=True))
               for w, m in zip(rounded, layers, strict=True)]  # fmt: skip
    assert all(float(c.float().mean()) > 0.1 for c in crossed), "plain rounding would lose them"
    save_checkpoint(tmp_path / "whole.pt", {"model": model.state_dict(), "identity": identity})
    save_half_precision(tmp_path / "whole.pt", tmp_path / "half.pt")
    images = torch.randn(16, 3, 8, 8)
    assert torch.equal(load(tmp_path / "half.pt")(images), model.eval()(images))

    teacher = build(network, None, num_classes=2, input_shape=(3, 8, 8))
    save_checkpoint(tmp_path / "whole.pt", {"model": teacher.state_dict(), "identity": {**identity, "scheme": None}})
    save_half_precision(tmp_path / "whole.pt", tmp_path / "half.pt")
    kept = load_checkpoint(tmp_path / "half.pt")["model"]
    assert all((v.dtype == torch.float16) == (v.ndim > 1) for v in kept.values())
    teacher.get_parameter(next(k for k, v in teacher.named_parameters() if v.ndim == 4)).data.fill_(1e5)
    save_checkpoint(tmp_path / "whole.pt", {"model": teacher.state_dict(), "identity": {**identity, "scheme": None}})
    with pytest.raises(UserError, match="beyond float16's largest, 65504"):
        save_half_precision(tmp_path / "whole.pt", tmp_path / "half.pt")


def test_a_run_that_is_not_finished_is_not_kept(small_queue: Path) -> None:
    (run,) = queue.read(small_queue / "results" / "queue.yaml")[0].runs
    source = small_queue / "runs" / run.name / run.member
    source.mkdir(parents=True)
    assert not queue.keep(run, small_queue / "runs", small_queue / "results")
    (source / "comparison.json").write_text("{}")
    (source / "metrics.csv").write_text("epoch\n1\n")
    assert not queue.keep(run, small_queue / "runs", small_queue / "results")


def finished(root: Path, **train: object) -> Any:
    """A run's folder as a finished training leaves it, with the queue's settings but for `train`."""
    (run,) = queue.read(root / "results" / "queue.yaml")[0].runs
    source = root / "runs" / run.name / run.member
    source.mkdir(parents=True)
    identity = to_dict(member_config(queue.configuration(run), run.member))
    identity["train"] |= train
    (source / "config.yaml").write_text(json.dumps(identity))
    (source / "metrics.csv").write_text("epoch\n1\n2\n")
    comparison = {"models": [{"name": run.member, "curve": [{}, {}]}]}
    (source / "comparison.json").write_text(json.dumps(comparison))
    (source / "student.onnx").write_bytes(b"onnx")
    return run


def test_a_copy_that_is_interrupted_is_made_again(small_queue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, folders = finished(small_queue), (small_queue / "runs", small_queue / "results")
    write_file = queue.write_file

    def full(path: Path, write: Any) -> None:
        if path.name == "student.onnx":
            raise UserError("disk full")
        write_file(path, write)

    with monkeypatch.context() as patch:
        patch.setattr(queue, "write_file", full)
        with pytest.raises(UserError, match="disk full"):
            queue.keep(run, *folders)
    assert not queue.done(run, folders[1])
    assert queue.keep(run, *folders) and queue.done(run, folders[1])
    assert (folders[1] / run.name / "student.onnx").read_bytes() == b"onnx"


def test_a_run_with_other_settings_is_not_kept(small_queue: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = finished(small_queue, lr=0.7)
    (small_queue / "results" / "README.md").unlink()
    assert queue.main(["--keep"]) == 0
    assert "train.lr: 0.7 there, 0.1 given" in capsys.readouterr().err
    assert not (small_queue / "results" / run.name).exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("blocks"), r"is not a queue of runs: KeyError\('blocks'\)"),
        (lambda t: t["blocks"][0]["runs"][0].update(seeds=[3, 3]), r"two runs are called cifar10-resnet8-recu-s3"),
        (lambda t: t["blocks"][0]["runs"][0].update(teacher="x-s0"), r"needs its teacher x-s0 to come before it"),
    ],
)
def test_a_queue_that_does_not_fit(small_queue: Path, change: Any, message: str) -> None:
    path = small_queue / "results" / "queue.yaml"
    tree = json.loads(path.read_text())
    change(tree)
    path.write_text(json.dumps(tree))
    with pytest.raises(UserError, match=message):
        queue.read(path)
    assert queue.main([str(path.parent)]) == 2 and queue.main(["nowhere"]) == 2
    assert queue.main(["--device", "tpu"]) == 2


# ---- the training path


class _Reads(TorchDispatchMode):
    """Counts what would make the host wait for a device: values and sizes that are read from tensors."""

    WAITS = ("aten._local_scalar_dense", "aten.nonzero", "aten.is_nonzero", "aten.equal", "aten.masked_select")

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func).rpartition(".")[0]
        if name in self.WAITS:
            self.count[name] += 1
        return func(*args, **(kwargs or {}))


def trainer_of(npz: Path, **train: Any) -> tuple[Trainer, Any]:
    data = load_data(DataConfig(name="cifar10", root=str(npz)))
    torch.manual_seed(0)
    shape = data.input_shape
    teacher, student = resnet8(3, input_shape=shape).eval(), resnet8(3, input_shape=shape, binary="recu")
    config = TrainConfig(epochs=4, batch_size=16, warmup_epochs=0, **train)
    distill = DistillConfig(ce=0.1, kd=KDConfig(warmup_epochs=1.0), itrd=ITRDConfig())
    fabric = make_fabric(CPU, precision=config.precision)
    return Trainer(student, teacher, input_shape=shape, train=config, distill=distill, fabric=fabric), data


def test_an_epoch_reads_nothing_from_the_device_before_its_end(tmp_path: Path) -> None:
    """The number of reads does not grow with the steps: 2 steps and 6, with a moving average and scheduled weights."""
    from bnn_itrd.training.progress import Progress

    counts = []
    for n in (32, 96):
        trainer, data = trainer_of(write_npz(tmp_path / f"{n}.npz", n=n), ema=0.9, channels_last=True)
        quiet = Progress("", epochs=4, steps=n // 16, names=(), batch_size=16, enabled=False, live=False)
        with _Reads() as reads:
            trainer.train_epoch(data, quiet)
        # The count of the average's updates lies on the CPU, whatever the device.
        assert trainer.ema is not None and trainer.ema.n_averaged.device.type == "cpu"
        assert int(trainer.ema.n_averaged) == n // 16
        counts.append(dict(reads.count))
        trainer.objective.release()
    with _Reads() as reads:
        torch.ones(()).item()
    assert reads.count["aten._local_scalar_dense"] == 1
    per_update = {k: (counts[1].get(k, 0) - counts[0].get(k, 0)) / 4 for k in counts[1]}
    # One read a step: that of the count on the CPU.
    assert all(v <= 1 for v in per_update.values()), (counts, per_update)


def test_moving_average_is_the_closed_form() -> None:
    """a_0 = w_0, a_t = d a_(t-1) + (1 - d) w_t, buffers too; whole numbers are the network's."""
    decay = 0.75
    net = nn.BatchNorm1d(2).double()
    average = MovingAverage(net, decay)
    want: dict[str, np.ndarray] = {}
    for t in range(4):
        with torch.no_grad():
            net.weight.copy_(torch.tensor([1.0 + t, 2.0 * t * t]))
            net.running_mean.copy_(torch.tensor([5.0 - t, 0.5 * t]))  # type: ignore[union-attr]
            net.num_batches_tracked.fill_(10 + t)  # type: ignore[operator, union-attr]
        average.update_parameters(net)
        for name in ("weight", "running_mean"):
            new = getattr(net, name).detach().numpy().copy()
            want[name] = new if t == 0 else decay * want[name] + (1 - decay) * new
    for name, value in want.items():
        np.testing.assert_allclose(getattr(average.module, name).detach().numpy(), value, rtol=1e-14)
    assert int(average.module.num_batches_tracked) == 13 and int(average.n_averaged) == 4


def test_sign_flips_are_recorded(tiny_npz: Path) -> None:
    """Against ReCU's sign(w - mean of its filter) in NumPy, from the weights before and after each epoch."""
    from bnn_itrd.training.progress import Progress

    trainer, data = trainer_of(tiny_npz, lr=0.3)
    quiet = Progress("", epochs=4, steps=6, names=(), batch_size=16, enabled=False, live=False)

    def positive() -> np.ndarray:
        rows = []
        for layer in trainer.student.modules():
            if isinstance(layer, BinaryConv2d):
                w = layer.weight.detach().double().numpy()
                rows.append((w >= w.mean((1, 2, 3), keepdims=True)).ravel())
        return np.concatenate(rows)

    for _ in range(2):
        before = positive()
        row = trainer.train_epoch(data, quiet)
        changed = 100 * np.mean(before != positive())
        # Float32 may put a weight at its filter's mean on the other side.
        assert changed > 0.1 and row["sign_flips"] == pytest.approx(changed, abs=0.01)
    trainer.objective.release()


# ---- the picture


def test_curves_of_runs(tmp_path: Path) -> None:
    rows = [{"epoch": e, "seconds": s, "top1": t} for e, s, t in ((1, 60.0, 40.0), (2, 600.0, None), (3, 90.0, 50.0))]
    # The median epoch takes a minute and a half; the second one was not evaluated.
    assert runs.minutes_curve(rows) == [(1.5, 40.0), (4.5, 50.0)]
    assert runs.epochs_curve(rows) == [(1, 40.0), (3, 50.0)]
    assert runs.epochs_curve(rows, 2) == [(3, 40.0), (5, 50.0)]
    # ReCU, eq. 16: A exp(p) + B from tau_min to tau_max; half way it is below the middle, as exp is convex.
    scheme = {"weight": "recu", "tau_min": 0.85, "tau_max": 0.99}
    points = runs.tau_curve({"scheme": scheme}, 4)
    want = [0.85 + 0.14 * (math.exp(e / 4) - 1) / (math.e - 1) for e in range(5)]
    assert [x for x, _ in points] == [0, 1, 2, 3, 4] and [y for _, y in points] == pytest.approx(want, abs=1e-6)
    late = runs.tau_curve({"scheme": {**scheme, "first_stage_epochs": 2}}, 4)
    assert late == [(x + 2, y) for x, y in points]
    assert runs.tau_curve({"scheme": None}, 4) == [] == runs.tau_curve({"scheme": {"weight": "xnor"}}, 4)

    folders = sorted(path.parent for path in RESULTS.glob("cifar10-resnet20-recu*/metrics.csv"))[:2]
    assert runs.main([*map(str, folders), "--out", str(tmp_path / "two.png")]) == 0
    flips = tmp_path / "flips"
    shutil.copytree(folders[0], flips)
    lines = (flips / "metrics.csv").read_text().splitlines()
    (flips / "metrics.csv").write_text("\n".join([lines[0] + ",sign_flips", *(line + ",3" for line in lines[1:])]))
    assert runs.main([str(flips), "--out", str(tmp_path / "three.png"), "--epochs"]) == 0
    widths = [Image.open(tmp_path / f"{name}.png").size[0] for name in ("two", "three")]
    # A panel more where signs that flip were recorded.
    assert widths[1] * 2 == widths[0] * 3
    assert runs.main([str(tmp_path), "--out", str(tmp_path / "none.png")]) == 2


# ---- what newcomers start from


def test_predict_with_a_student_of_the_repository(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "image.png")
    students = sorted(RESULTS.glob("*/student.onnx"))
    assert students
    assert main(["predict", str(students[0]), str(tmp_path / "image.png")]) == 0
    shown = capsys.readouterr().out
    classes = json.loads((students[0].parent / "comparison.json").read_text())["dataset"]["classes"]
    assert sum(name in shown for name in classes) == 3


CIFAR10 = os.environ.get("BNN_ITRD_CIFAR10")


@pytest.mark.skipif(not CIFAR10, reason="BNN_ITRD_CIFAR10 names no cifar10.npz")
def test_a_student_of_the_repository_has_its_accuracy(tmp_path: Path) -> None:
    """500 test images, prepared here: within three standard errors of the folder's figure, which is that of 10,000."""
    folder = next(path.parent for path in sorted(RESULTS.glob("cifar10-*/student.onnx")))
    shutil.copyfile(folder / "student.onnx", tmp_path / "student.onnx")
    with np.load(str(CIFAR10)) as arrays:
        images, labels = arrays["x_test"][:500], arrays["y_test"][:500]
    session = bnn_itrd.export.session(tmp_path / "student.onnx", threads=1)
    known = bnn_itrd.export.read_metadata(tmp_path / "student.onnx")
    mean, std = (np.asarray(known[key], np.float32) for key in ("mean", "std"))
    batch = ((images.astype(np.float32) / 255 - mean) / std).transpose(0, 3, 1, 2)
    logits = np.asarray(session.run(None, {session.get_inputs()[0].name: batch})[0])
    share = float((logits.argmax(1) == labels).mean())
    stated = json.loads((folder / "comparison.json").read_text())["models"][-1]["top1_last"] / 100
    assert abs(share - stated) < 3 * math.sqrt(stated * (1 - stated) / 500)
    # And by the command that the table's readers have, in the folder as it is.
    assert (
        main(["validate", str(folder / "student.onnx"), "--data=cifar10", f"--data.root={CIFAR10}", "--images=500"])
        == 0
    )
