"""A finished training's evaluation stands in its checkpoint: the call that exports makes none again."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import write_npz
from PIL import Image
from torch import nn
from torch.utils.data import TensorDataset

from bnn_itrd.config.data import DataConfig
from bnn_itrd.config.distillers import DistillConfig
from bnn_itrd.config.train import FabricConfig, LogConfig, TrainConfig
from bnn_itrd.data.datasets import load_data
from bnn_itrd.data.files.folder_split import FolderSplit
from bnn_itrd.data.splits import ImageData
from bnn_itrd.data.tensor_split import TensorSplit
from bnn_itrd.models import resnet8
from bnn_itrd.training import evaluation, trainer
from bnn_itrd.training.checkpoint import load_checkpoint, save_checkpoint
from bnn_itrd.training.evaluation import Evaluation, kept_evaluation, score, to_keep
from bnn_itrd.training.fabric import make_fabric
from bnn_itrd.training.fit import fit


def _ends_with(data: ImageData, out: Path, network: nn.Module | None = None) -> Evaluation:
    torch.manual_seed(0)
    return fit(
        resnet8(3, input_shape=data.input_shape) if network is None else network,
        None,
        data,
        train=TrainConfig(epochs=1, batch_size=32, warmup_epochs=0),
        distill=DistillConfig(),
        fabric=make_fabric(FabricConfig(accelerator="cpu", threads=1)),
        log=LogConfig(tensorboard=False, progress=False),
        out=out,
        identity={},
    ).final


def test_a_finished_training_is_not_evaluated_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is where the images differ, under the same labels; the labels; the normalisation; the weights; or the kept."""
    root, run = str(write_npz(tmp_path / "x.npz")), tmp_path / "run"
    first = _ends_with(load_data(DataConfig(name="cifar10", root=root)), run)
    evaluated: list[int] = []

    def counted(*given: object, **options: object) -> Evaluation:
        evaluated.append(1)
        return first

    def evaluations(data: ImageData) -> int:
        evaluated.clear()
        again = _ends_with(data, run)
        assert torch.equal(again.logits, first.logits) and torch.equal(again.labels, first.labels)
        assert (again.top1, again.top5, again.loss) == (first.top1, first.top5, first.loss)
        return len(evaluated)

    monkeypatch.setattr(trainer, "evaluate", counted)
    data = load_data(DataConfig(name="cifar10", root=root))
    assert evaluations(data) == 0
    test = data.test
    assert isinstance(test, TensorSplit)
    test.images[-1, 0, 0, 0] ^= 1
    assert evaluations(data) == 1
    test.images[-1, 0, 0, 0] ^= 1
    assert evaluations(data) == 0
    assert evaluations(replace(data, val=test.take(torch.arange(5)))) == 1
    test.labels = (test.labels + 1) % 3
    assert evaluations(data) == 1
    assert (
        evaluations(load_data(DataConfig(name="cifar10", root=root)).normalised_with(data.mean, (0.3, 0.3, 0.3))) == 1
    )

    data, state = load_data(DataConfig(name="cifar10", root=root)), load_checkpoint(run / "last.pt")
    other = copy.deepcopy(state)
    next(t for name, t in other["objective"].items() if name.endswith("running_mean")).add_(1)
    # Without it: a checkpoint of a version that kept none.
    for changed in (other, {k: v for k, v in state.items() if k != "final"}, {**state, "final": {"logits": 3}}):
        save_checkpoint(run / "last.pt", changed)
        assert evaluations(data) == 1
    state["optimizer"]["state"] = {}  # what is kept of a run where room is scarce
    save_checkpoint(run / "last.pt", state)
    assert evaluations(data) == 0


class _Plain(nn.Sequential):
    """A network as a user writes it: its forward pass may change while its weights stay."""


class _Doubled(_Plain):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * torch.as_tensor(super().forward(x))


def _linear(cls: type[nn.Sequential], *last: nn.Module) -> nn.Sequential:
    return cls(nn.Flatten(), nn.Linear(192, 3), *last)


@pytest.mark.parametrize("changed", [_linear(_Doubled), _linear(nn.Sequential, nn.Tanh())], ids=["class", "modules"])
def test_a_finished_training_is_evaluated_with_the_code_of_now(changed: nn.Sequential, tmp_path: Path) -> None:
    data = load_data(DataConfig(name="cifar10", root=str(write_npz(tmp_path / "x.npz"))))
    first = _ends_with(data, tmp_path / "run", _linear(_Plain)).logits
    expected = 2 * first if isinstance(changed, _Doubled) else first.tanh()
    torch.testing.assert_close(_ends_with(data, tmp_path / "run", changed).logits, expected)


def _split(images: torch.Tensor) -> TensorSplit:
    half = torch.full((3,), 0.5)
    return TensorSplit(images, torch.tensor([1, 1]), half, half, crop_padding=0, flip=False)


def test_what_a_checkpoint_keeps_of_an_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    model, split = nn.Linear(1, 1), _split(torch.zeros(2, 3, 4, 4, dtype=torch.uint8))
    made = score(torch.tensor([[0.0, 2.0], [3.0, 1.0]]), torch.tensor([1, 1]))
    kept = to_keep(made, model, split)
    assert kept is not None
    again = kept_evaluation(kept, model, split)
    assert again is not None and (again.top1, again.top5, again.loss) == (50.0, 100.0, made.loss)
    # The same numbers in another form.
    assert kept_evaluation(kept, model, _split(torch.zeros(2, 3, 2, 8, dtype=torch.uint8))) is None
    wrong = [None, 3, {}, {"logits": made.logits}, {**kept, "labels": torch.tensor([1])}, {**kept, "of": None}]
    assert [kept_evaluation(each, model, split) for each in wrong] == [None] * 6
    monkeypatch.setattr(evaluation, "_MOST_KEPT", 3)
    assert to_keep(made, model, split) is None


def test_files_count_with_what_they_hold(tmp_path: Path) -> None:
    """Neither their folder nor their dates: a data set is another copy on another machine."""
    for name, shades in {"here": (9, 200), "there": (9, 200), "other": (9, 201)}.items():
        (tmp_path / name).mkdir()
        for i, shade in enumerate(shades):
            Image.new("RGB", (8, 8), (shade, 0, 0)).save(tmp_path / name / f"{i}.png")

    def split(folder: str, size: int = 8) -> FolderSplit:
        paths = [tmp_path / folder / f"{i}.png" for i in range(2)]
        return FolderSplit(paths, torch.tensor([0, 1]), size=size, workers=0, flip=False)

    here = split("here").fingerprint()
    assert here == split("there").fingerprint() is not None
    assert len({here, split("other").fingerprint(), split("here", 4).fingerprint()}) == 3
    (tmp_path / "here" / "1.png").unlink()
    assert split("here").fingerprint() is None


def test_of_a_users_own_dataset_nothing_is_kept() -> None:
    own = TensorDataset(torch.rand(20, 3, 8, 8), torch.arange(20) % 2)
    made = score(torch.tensor([[0.0, 2.0]]), torch.tensor([1]))
    data = ImageData.from_datasets(own)
    assert data.test.fingerprint() is None and to_keep(made, nn.Linear(1, 1), data.test) is None
    in_memory = [ImageData.from_datasets(own, in_memory=True).test.fingerprint() for _ in range(2)]
    assert in_memory[0] == in_memory[1] is not None
