"""A user's own data set by its address, with options, and in runs."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.own_data import CPU, epoch

from bnn_itrd.config.data import DataConfig
from bnn_itrd.data.batches import UNLABELLED
from bnn_itrd.data.dataset_split import DatasetSplit
from bnn_itrd.data.datasets import as_image_data, load_data
from bnn_itrd.data.splits import ImageData
from bnn_itrd.data.tensor_split import TensorSplit
from bnn_itrd.errors import UserError
from bnn_itrd.runs.recorded import validation_data

MODULE = """
import torch
from torch.utils.data import TensorDataset
from bnn_itrd.config.data import DataConfig
from bnn_itrd.data import ImageData

def sets(size=8):
    labels = torch.arange(60) % 3
    images = torch.randint(0, 120, (60, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images[torch.arange(60), labels] += 120
    return TensorDataset(images, labels), TensorDataset(images[:12], labels[:12])

def pair(): return sets()
def sized(image_size): return sets(image_size)
def built():
    half = (0.5, 0.5, 0.5)
    return ImageData.from_datasets(*sets(), val=sets()[1], in_memory=True, name="mine", mean=half, std=half)
def few(per_class, crop_padding, flip):
    train, test = sets()
    return ImageData.from_datasets(torch.utils.data.Subset(train, range(3 * per_class)), test)
def rooted(config): return sets(int(config.root))
def elsewhere(root): return DataConfig(name="digits", crop_padding=0)
NUMBER = 3
def needs(folder): return sets()
def fails(): raise OSError("no disk")
READY = {"train": sets()[0], "test": sets()[1]}

class Odd:
    def __init__(self, split): self.labels, self.mean, self.std = split.labels, split.mean, split.std
    def __len__(self): return len(self.labels)
def odd():
    import dataclasses
    data = built()
    return dataclasses.replace(data, train=Odd(data.train))
def odd_taken(crop_padding, flip): return odd()
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ImageData]:
    import sys

    (tmp_path / "my_own_sets.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "my_own_sets", raising=False)
    return lambda name, **options: load_data(DataConfig(name=f"my_own_sets:{name}", **options))


def test_an_address_is_a_name_like_any_other(own: Callable[..., ImageData]) -> None:
    data = own("pair")
    assert data.name == "my_own_sets:pair" and (len(data.train), len(data.test)) == (60, 12)
    assert isinstance(data.train, DatasetSplit)
    assert (data.train.crop_padding, data.train.flip, data.train.workers) == (4, True, 2)
    plain = own("pair", crop_padding=0, flip=False, workers=0)
    images, _, index = epoch(plain.train)[0]
    seen = next(plain.train.eval_batches(60, device=CPU))[0]
    assert torch.equal(images, seen[index])
    assert len(own("READY").train) == 60 and own("sized", image_size=12).input_shape == (3, 12, 12)
    assert own("pair", image_size=12).input_shape == (3, 12, 12)
    assert own("rooted", root="6").input_shape == (3, 6, 6)
    digits = own("elsewhere", root="x", crop_padding=1)
    assert digits.name == "my_own_sets:elsewhere" and isinstance(digits.train, TensorSplit)
    assert digits.train.crop_padding == 1
    assert as_image_data("my_own_sets:pair")[1] == {**vars(DataConfig()), "name": "my_own_sets:pair"}


def test_fields_that_it_does_not_take_are_done_for_it(own: Callable[..., ImageData]) -> None:
    data = own("pair", val_fraction=0.25, per_class=4)
    assert data.val is not None and (len(data.train), len(data.val), len(data.test)) == (12, 15, 12)
    assert torch.bincount(data.train.labels).tolist() == [4, 4, 4]
    assert isinstance(data.train, DatasetSplit) and isinstance(data.val, DatasetSplit)
    assert not set(data.train.indices.tolist()) & set(data.val.indices.tolist())
    for images, labels, index in data.train.eval_batches(12, device=CPU):
        assert torch.equal(images.mean((2, 3)).argmax(1), labels) and index.tolist() == list(range(12))
    mixed = own("pair", per_class=4, unlabelled=True)
    assert len(mixed.train) == 60 and int((mixed.train.labels == UNLABELLED).sum()) == 48
    assert all(torch.equal(labels, mixed.train.labels[index]) for _, labels, index in epoch(mixed.train))
    built = own("built", per_class=5)
    assert isinstance(built.train, TensorSplit) and len(built.train) == 15
    assert built.val is not None and len(built.val) == 12 and built.mean == (0.5,) * 3
    # what it takes it does itself
    few = own("few", per_class=7, crop_padding=3)
    assert isinstance(few.train, DatasetSplit) and (len(few.train), few.train.crop_padding) == (21, 0)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("pair", {"root": "x"}, r"data\.root has no effect, because my_own_sets:pair has no parameter root: add one"),
        ("pair", {"download": True}, r"pair has no parameter download"),
        ("built", {"image_size": 12}, r"gives images of 8 x 8 pixels, whatever data\.image_size \(12\) is"),
        ("built", {"val_fraction": 0.5}, r"holds images out itself: leave out data\.val_fraction"),
        ("pair", {"per_class": 21}, r"data\.per_class must be at most 20"),
        (
            "odd",
            {"crop_padding": 2},
            r"gives a training split of its own, Odd, which data\.crop_padding and data\.flip",
        ),
        ("odd_taken", {"per_class": 2}, r"Odd, of which data\.val_fraction and data\.per_class cannot take a part"),
        ("nothing", {}, "has no 'nothing'"),
        ("NUMBER", {}, "data must be the name of a data set, a DataConfig, ImageData, a torch Dataset.*; got int"),
        ("needs", {}, "needs the argument 'folder'"),
        ("fails", {}, "failed to make a data set: OSError: no disk"),
    ],
)
def test_fields_that_cannot_be_done(
    own: Callable[..., ImageData], name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        own(name, **options)


def test_a_run_that_names_code_is_refused(own: Callable[..., ImageData]) -> None:
    name = "my_own_sets:pair"
    saved = {"data": {"name": name, "workers": 0}}
    refused = re.escape(f"data.name names the code '{name}', which would be run")
    for known, config, trust in (({}, saved, False), ({"dataset": name}, {}, False), ({}, saved, {"other:make"})):
        with pytest.raises(UserError, match=refused):
            validation_data(known, config, {}, trust=trust)
    given: list[tuple[dict[str, Any], Any]] = [({}, True), ({}, {name}), ({"name": name}, False)]
    for fields, trust in given:
        assert validation_data({}, saved, fields, trust=trust).name == name
    seen = validation_data({"mean": [0.5] * 3, "std": [0.25] * 3}, saved, {"name": name})
    assert seen.mean == (0.5,) * 3 and seen.test.std.tolist() == [0.25] * 3
    with pytest.raises(UserError, match="trained on a data set of your own, 'own', which cannot be loaded by its na"):
        validation_data({}, {"data": {"name": "own"}}, {})
