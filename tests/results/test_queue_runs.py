"""results/run_queue.py works a queue off, keeps finished runs alone, and refuses what does not fit."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.results import queue

from bnn_itrd import load
from bnn_itrd.cli import main
from bnn_itrd.config.network import NetworkConfig
from bnn_itrd.config.run import member_config
from bnn_itrd.config.scheme import SchemeConfig
from bnn_itrd.config.trees import to_dict
from bnn_itrd.errors import UserError
from bnn_itrd.quant import BinaryConv2d
from bnn_itrd.runs.half_precision import save_half_precision
from bnn_itrd.runs.networks import build
from bnn_itrd.training.checkpoint import load_checkpoint, matching_state, save_checkpoint
from bnn_itrd.training.metrics import read_metrics


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
    assert queue.main(["--device", "gpu"]) == 0 and "all 0 planned runs" in capsys.readouterr().out
    assert queue.main(["--commands"]) == 0
    words = shlex.split(capsys.readouterr().out)
    assert main(words[1:]) == 0
    capsys.readouterr()
    assert queue.main(["--keep"]) == 0
    assert "all 1 planned runs are done" in capsys.readouterr().out
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
    model = {"name": run.member, "network": "resnet8", "top1_last": 50, "bytes": 1, "curve": [{}, {}]}
    comparison = {"models": [model]}
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
        (lambda t: t["blocks"][0]["runs"][0].update(teacher="x-s0"), r"needs its teacher x-s0: put that before it"),
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


def test_a_field_that_is_given_twice_is_refused(small_queue: Path) -> None:
    path = small_queue / "results" / "queue.yaml"
    path.write_text(path.read_text().replace('"train.epochs": 2', '"train.epochs": 2, "train.epochs": 3'))
    with pytest.raises(UserError, match=r"queue\.yaml: line 1 gives 'train\.epochs' a second time"):
        queue.read(path)


def test_records_that_cannot_be_read_are_named(small_queue: Path) -> None:
    run = finished(small_queue)
    (small_queue / "runs" / run.name / run.member / "config.yaml").write_text("[recu]")
    with pytest.raises(UserError, match=r"config\.yaml is not the configuration of a run: .* got list"):
        queue.keep(run, small_queue / "runs", small_queue / "results")
    (small_queue / "results" / run.name).mkdir()
    (small_queue / "results" / run.name / "comparison.json").write_text('{"models": [{"name": "recu"}]}')
    with pytest.raises(UserError, match=r"comparison\.json is not a comparison of bnn-itrd: models\[0\]\.network is"):
        queue.done(run, small_queue / "results")
