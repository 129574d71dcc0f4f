"""TrivialAugment in batches gives what torchvision's operations give, image by image."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from bnn_itrd.data.trivial_augment import OPERATIONS, TrivialChoices, draw_trivial, trivial_augment

NEAREST = InterpolationMode.NEAREST


def warped(image: Tensor, *, x: int = 0, y: int = 0, shear: tuple[float, float] = (0.0, 0.0)) -> Tensor:
    degrees = [math.degrees(math.atan(s)) for s in shear]
    middle = [0, 0] if any(shear) else None
    made: Tensor = tv.affine(
        image, angle=0.0, translate=[x, y], scale=1.0, shear=degrees, interpolation=NEAREST, center=middle
    )
    return made


# As in torchvision.transforms.v2.TrivialAugmentWide.
REFERENCE: dict[str, Callable[[Tensor, float], Tensor]] = {
    "identity": lambda image, m: image,
    "shear_x": lambda image, m: warped(image, shear=(m, 0.0)),
    "shear_y": lambda image, m: warped(image, shear=(0.0, m)),
    "translate_x": lambda image, m: warped(image, x=int(m)),
    "translate_y": lambda image, m: warped(image, y=int(m)),
    "rotate": lambda image, m: tv.rotate(image, angle=m, interpolation=NEAREST),
    "brightness": lambda image, m: tv.adjust_brightness(image, 1 + m),
    "colour": lambda image, m: tv.adjust_saturation(image, 1 + m),
    "contrast": lambda image, m: tv.adjust_contrast(image, 1 + m),
    "sharpness": lambda image, m: tv.adjust_sharpness(image, 1 + m),
    "posterize": lambda image, m: tv.posterize(image, 8 - round(m)),
    "solarize": lambda image, m: tv.solarize(image, 255 - m),
    "autocontrast": lambda image, m: tv.autocontrast(image),
    "equalize": lambda image, m: tv.equalize(image),
}


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 8, 8), (3, 10, 14)])
def test_each_image_gets_its_own_operation(shape: tuple[int, int, int]) -> None:
    assert tuple(REFERENCE) == OPERATIONS
    n = 400
    images = torch.randint(0, 256, (n, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    choices = draw_trivial(n, np.random.default_rng(3))
    made = trivial_augment(images, choices)
    assert made.dtype == torch.uint8 and made.shape == images.shape
    names = [name for name, count in zip(OPERATIONS, choices.counts, strict=True) for _ in range(count)]
    assert set(names) == set(OPERATIONS)
    for place, name, magnitude in zip(choices.order.tolist(), names, choices.magnitudes.tolist(), strict=True):
        expected = REFERENCE[name](images[place], magnitude)
        differ = (made[place].int() - expected.int()).abs()
        # A blend is rounded down; one last bit of a product may put it a level lower.
        allowed = 1 if name == "colour" else 0
        assert int(differ.max()) <= allowed and float((differ > 0).float().mean()) < 0.02, (name, magnitude)


def test_magnitudes_are_31_of_each_operation() -> None:
    choices = draw_trivial(60_000, np.random.default_rng(0))
    start, seen = 0, {}
    for name, count in zip(OPERATIONS, choices.counts, strict=True):
        assert count == pytest.approx(60_000 / 14, rel=0.1)
        seen[name] = set(choices.magnitudes[start : start + count].tolist())
        start += count
    assert seen["identity"] | seen["equalize"] | seen["autocontrast"] == {0.0}
    assert len(seen["posterize"]) == 31 and len(seen["rotate"]) == 61  # of both signs, and 0
    assert (min(seen["rotate"]), max(seen["rotate"])) == (-135.0, 135.0)
    assert (min(seen["solarize"]), max(seen["solarize"])) == (0.0, 255.0)


def test_a_batch_of_one_operation() -> None:
    images = torch.arange(32, dtype=torch.uint8).reshape(2, 1, 4, 4)
    counts = tuple(2 if name == "translate_x" else 0 for name in OPERATIONS)
    made = trivial_augment(images, TrivialChoices(torch.tensor([1, 0]), counts, torch.tensor([1.9, -1.0])))
    assert made[1, 0, 0].tolist() == [0, 16, 17, 18] and made[0, 0, 0].tolist() == [1, 2, 3, 0]


def test_a_channel_of_one_value_stays_as_it_is() -> None:
    images = torch.randint(10, 200, (2, 3, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images[0, 1] = 77
    counts = tuple(2 if name == "autocontrast" else 0 for name in OPERATIONS)
    made = trivial_augment(images, TrivialChoices(torch.tensor([0, 1]), counts, torch.zeros(2)))
    assert torch.equal(made, torch.stack([tv.autocontrast(image) for image in images]))
    assert (made[0, 1] == 77).all() and made[0, 0].min() == 0 and made[0, 0].max() == 255
