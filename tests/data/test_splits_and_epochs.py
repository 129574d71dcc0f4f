"""The embedded set, augmentation, normalisation, images held out, and the order of an epoch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.data_sets import CPU

from bnn_itrd.config.data import DataConfig
from bnn_itrd.data.augment import crop_and_flip, draw, normalise
from bnn_itrd.data.datasets import load_data
from bnn_itrd.data.images import channel_statistics
from bnn_itrd.data.seeds import shuffled
from bnn_itrd.data.tensor_split import TensorSplit
from bnn_itrd.errors import UserError


def test_digits_is_embedded_and_split_by_class() -> None:
    data = load_data(DataConfig())
    assert data.input_shape == (1, 8, 8) and data.classes == tuple("0123456789")
    assert len(data.train) + len(data.test) == 1797
    counts = torch.bincount(data.test.labels)
    assert counts.min() >= 34 and counts.max() <= 38
    images, _, _ = next(data.test.eval_batches(400, device=CPU))
    train = torch.cat([b[0] for b in data.train.eval_batches(400, device=CPU)])
    torch.testing.assert_close(train.mean(), torch.tensor(0.0), atol=1e-4, rtol=0)
    torch.testing.assert_close(train.std(), torch.tensor(1.0), atol=1e-3, rtol=0)
    assert images.shape[1:] == (1, 8, 8)


def test_statistics_equal_numpys() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5000, 3, 4, 2), dtype=np.uint8)
    mean, std = channel_statistics(images)
    np.testing.assert_allclose(mean.numpy(), (images / 255).mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(std.numpy(), (images / 255).std((0, 1, 2)), rtol=1e-6)
    assert channel_statistics(np.zeros((2, 3, 3, 1), np.uint8))[1] > 0


def test_download_needs_no_root(monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision.datasets

    asked = []

    class Fake(torchvision.datasets.CIFAR10):
        def __init__(self, root: Path, train: bool, download: bool) -> None:
            asked.append((str(root), download))
            raise RuntimeError("no network here")

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", Fake)
    with pytest.raises(UserError, match="no network here"):
        load_data(DataConfig(name="cifar10", download=True))
    assert asked == [("data", True)]


def test_image_size_scales_small_images() -> None:
    data = load_data(DataConfig(image_size=16))
    assert data.input_shape == (1, 16, 16)
    assert data.test.raw(0).shape == (16, 16, 1)


def test_crop_and_flip_equals_a_loop() -> None:
    torch.manual_seed(0)
    images = torch.randint(0, 255, (9, 3, 6, 5), dtype=torch.uint8)
    choice = draw(9, padding=2, flip=True, generator=torch.Generator().manual_seed(1))
    assert choice[:, :2].max() <= 4 and set(choice[:, 2].tolist()) == {0, 1}
    result = crop_and_flip(images, choice, padding=2)
    for image, (top, left, mirrored), got in zip(images, choice.tolist(), result, strict=True):
        padded = np.zeros((3, 10, 9), np.uint8)
        padded[:, 2:8, 2:7] = image.numpy()
        cropped = padded[:, top : top + 6, left : left + 5]
        expected = cropped[:, :, ::-1] if mirrored else cropped
        assert np.array_equal(got.numpy(), expected)


def test_no_padding_no_flip_changes_nothing() -> None:
    images = torch.randint(0, 255, (4, 1, 5, 5), dtype=torch.uint8)
    choice = draw(4, padding=0, flip=False, generator=torch.Generator())
    assert torch.equal(crop_and_flip(images, choice, padding=0), images)


def test_normalise() -> None:
    images = torch.tensor([[[[0, 255]], [[51, 102]]]], dtype=torch.uint8)
    mean, std = torch.tensor([0.5, 0.2]), torch.tensor([0.25, 0.1])
    expected = torch.tensor([[[[-2.0, 2.0]], [[0.0, 2.0]]]])
    torch.testing.assert_close(normalise(images, mean, std), expected, atol=1e-6, rtol=0)


def test_an_epoch_is_a_function_of_seed_and_epoch(tiny_npz: Path) -> None:
    def epoch(seed: int, number: int, rank: int = 0, world: int = 1) -> list[tuple[torch.Tensor, ...]]:
        data = load_data(DataConfig(name="cifar10", root=str(tiny_npz)))
        return list(data.train.train_batches(32, seed=seed, epoch=number, device=CPU, rank=rank, world=world))

    one, again, other = epoch(0, 3), epoch(0, 3), epoch(0, 4)
    assert all(torch.equal(a, b) for x, y in zip(one, again, strict=True) for a, b in zip(x, y, strict=True))
    assert not torch.equal(one[0][2], other[0][2])
    assert sorted(torch.cat([b[2] for b in one]).tolist()) == list(range(96))
    # two processes see, together, the batch of one
    halves = [epoch(0, 3, rank, 2) for rank in (0, 1)]
    for whole, first, second in zip(one, *halves, strict=True):
        assert torch.equal(whole[2], torch.stack([first[2], second[2]], 1).flatten())
        assert torch.equal(whole[0], torch.stack([first[0], second[0]], 1).flatten(0, 1))
        assert len(first[2]) == 16


def test_indices_point_at_the_images(tiny_npz: Path) -> None:
    data = load_data(DataConfig(name="cifar10", root=str(tiny_npz), crop_padding=0, flip=False))
    images, labels, index = next(data.train.train_batches(16, seed=0, epoch=0, device=CPU))
    assert isinstance(data.train, TensorSplit)
    torch.testing.assert_close(images, normalise(data.train.images[index], data.train.mean, data.train.std))
    assert torch.equal(labels, data.train.labels[index])


def test_order_differs_by_seed() -> None:
    assert not torch.equal(shuffled(50, seed=0, epoch=0), shuffled(50, seed=1, epoch=0))


def test_held_out_images_leave_training_and_do_not_depend_on_the_seed(tiny_npz: Path) -> None:
    data = load_data(DataConfig(name="cifar10", root=str(tiny_npz), val_fraction=0.25))
    assert data.val is not None
    assert (len(data.train), len(data.val), len(data.test)) == (72, 24, 48)
    assert torch.bincount(data.val.labels).tolist() == [8, 8, 8]
    assert isinstance(data.train, TensorSplit) and isinstance(data.val, TensorSplit)
    seen = {bytes(i.numpy().tobytes()) for i in data.train.images}
    assert not seen & {bytes(i.numpy().tobytes()) for i in data.val.images}


def test_torchvision_layout(tmp_path: Path) -> None:
    import pickle

    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    with pytest.raises(UserError, match="does not hold a whole cifar10 in torchvision's layout"):
        load_data(DataConfig(name="cifar10", root=str(tmp_path)))
    rng = np.random.default_rng(0)
    from torchvision.datasets import CIFAR10

    class Loose(CIFAR10):
        def _check_integrity(self) -> bool:
            return True

    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        rows = rng.integers(0, 256, (10, 3072), dtype=np.uint8)
        (folder / name).write_bytes(pickle.dumps({"data": rows, "labels": list(range(10))}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [f"c{i}" for i in range(10)]}))
    import torchvision.datasets as sets

    original = sets.CIFAR10
    try:
        sets.CIFAR10 = Loose  # the real files' checksums are torchvision's business
        import torchvision.datasets.cifar as module

        check, module.check_integrity = module.check_integrity, lambda *a, **k: True
        data = load_data(DataConfig(name="cifar10", root=str(tmp_path)))
        module.check_integrity = check
    finally:
        sets.CIFAR10 = original
    assert (len(data.train), len(data.test)) == (50, 10) and data.classes[3] == "c3"
