"""An epoch of a user's own Dataset repeats, in one process and in two, and a resumed run continues exactly."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.own_data import CPU, Listed, colours, epoch, pair

import bnn_itrd
from bnn_itrd.config.data import DataConfig
from bnn_itrd.config.train import FabricConfig, LogConfig, TrainConfig
from bnn_itrd.data.arrays import Arrays, from_arrays
from bnn_itrd.data.dataset_split import DatasetSplit
from bnn_itrd.data.splits import ImageData
from bnn_itrd.data.tensor_split import TensorSplit
from bnn_itrd.models import resnet8


def same(first: Any, second: Any) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a, b) for x, y in zip(first, second, strict=True) for a, b in zip(x, y, strict=True)
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_read_item_by_item_equals_what_is_in_memory(workers: int) -> None:
    read = pair(crop_padding=2, flip=True, workers=workers)
    held = pair(crop_padding=2, flip=True, in_memory=True)
    assert isinstance(read.train, DatasetSplit) and isinstance(held.train, TensorSplit)
    assert read.mean == held.mean and read.std == held.std
    for number in (0, 1):
        assert same(epoch(read.train, number=number), epoch(held.train, number=number))
    assert same(list(read.test.eval_batches(5, device=CPU)), list(held.test.eval_batches(5, device=CPU)))
    # and that is what a set by name does with the same images
    (x, y), (x_test, y_test) = ((i.permute(0, 2, 3, 1).numpy(), t.numpy()) for i, t in (colours(48), colours(12, 1)))
    named = from_arrays(DataConfig(crop_padding=2), Arrays(x, y, x_test, y_test, ("0", "1", "2")))
    assert same(epoch(read.train), epoch(named.train)) and named.mean == read.mean
    for i in range(12):
        assert np.array_equal(read.test.raw(i), x_test[i]) and np.array_equal(held.test.raw(i), x_test[i])


def test_two_processes_see_what_one_does() -> None:
    data = pair(crop_padding=1, flip=True)
    whole, halves = epoch(data.train), [epoch(data.train, rank=rank, world=2) for rank in (0, 1)]
    for one, first, second in zip(whole, *halves, strict=True):
        assert len(first[2]) == 8
        for a, b, c in zip(one, first, second, strict=True):
            assert torch.equal(a, torch.stack([b, c], 1).flatten(0, 1))


def drawing(image: torch.Tensor) -> torch.Tensor:
    """A random transform that draws from all three generators, and from one of its own as the guide says."""
    own = np.random.default_rng(torch.initial_seed())
    shift = float(torch.rand(())) + np.random.rand() + random.random() + own.random()
    return (image.float() / 255 * shift / 4).clamp(0, 1)


def drawn(workers: int = 0, **options: Any) -> ImageData:
    images, labels = colours(48)
    samples = list(zip(images, labels.tolist(), strict=True))
    return ImageData.from_datasets(Listed(samples, drawing), Listed(samples[:12]), workers=workers, **options)


def test_random_transforms_are_a_function_of_seed_epoch_and_index() -> None:
    data, workers = drawn(), drawn(workers=2)
    assert data.mean == workers.mean
    first = epoch(data.train)
    torch.manual_seed(3)
    np.random.seed(3)
    random.seed(3)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # type: ignore[index,union-attr]
    sample = data.train.raw(5)
    after = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # type: ignore[index,union-attr]
    assert torch.equal(before[0], after[0]) and before[1:] == after[1:]
    assert same(first, epoch(data.train)) and same(first, epoch(workers.train))
    assert np.array_equal(sample, data.train.raw(5))

    def by_index(batches: Any) -> dict[int, torch.Tensor]:
        return {int(i): image for images, _, index in batches for image, i in zip(images, index, strict=True)}

    other, third = by_index(epoch(data.train, number=3)), by_index(epoch(data.train, seed=2))
    for i, image in by_index(first).items():
        assert not torch.equal(image, other[i]) and not torch.equal(image, third[i])
    # kept in memory they run once
    held = drawn(in_memory=True)
    for i, image in by_index(epoch(held.train, number=3)).items():
        assert torch.equal(image, by_index(epoch(held.train))[i])


def test_a_resumed_run_continues_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bnn_itrd.training.trainer import Trainer

    def train(out: str) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        student = resnet8(3, in_channels=3, input_shape=(3, 8, 8), binary="recu")
        bnn_itrd.distill(
            student,
            None,
            drawn(crop_padding=1),
            train=TrainConfig(epochs=3, batch_size=16, lr=0.05),
            out=tmp_path / out,
            fabric=FabricConfig(accelerator="cpu", threads=1),
            log=LogConfig(progress=False, tensorboard=False),
        )
        return student.state_dict()

    whole = train("whole")
    once = Trainer.train_epoch

    def killed(self: Trainer, *args: Any) -> Any:
        if self.epoch == 1:
            raise KeyboardInterrupt
        return once(self, *args)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "train_epoch", killed)
        with pytest.raises(KeyboardInterrupt):
            train("part")
    resumed = train("part")
    assert resumed.keys() == whole.keys() and all(torch.equal(v, resumed[k]) for k, v in whole.items())
