"""Augments the images of a training step: TrivialAugment, cutout, mixup and CutMix.

Cropping and mirroring are done before, when a batch is made. The augmentation runs on the device, on a CPU for each
batch, on a GPU for several at once.
Its random numbers depend only on the seed, the epoch and the process. They are drawn at the start of an epoch and then
copied to the device.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bnn_itrd.config.train import TrainConfig
from bnn_itrd.data.augment import normalise
from bnn_itrd.data.batches import UNLABELLED, Batch, steps_together
from bnn_itrd.data.seeds import mix_seed
from bnn_itrd.data.splits import ImageData
from bnn_itrd.data.trivial_augment import TrivialChoices, draw_trivial, join_trivial, trivial_augment
from bnn_itrd.errors import UserError

__all__ = ["MixedLabels", "StepImages", "check_augmentation", "cut_out"]

# A number in this module's seeds, which makes its random numbers independent of others with the same seed and epoch.
_DRAWS = 7


class MixedLabels(NamedTuple):
    """The labels of images that were each mixed from two images: ``share * first + (1 - share) * second``.

    `first` and `second` are the labels of the two, (n,) each; `share`, (), is the first's share in all images. `own`
    is the label with the larger share.
    """

    first: Tensor
    second: Tensor
    share: Tensor

    @property
    def own(self) -> Tensor:
        """One label for each image, (n,): that of the image with the larger share."""
        return torch.where(self.share >= 0.5, self.first, self.second)


# (images, labels, indices, mixed); see `StepImages.epoch`.
AugmentedBatch = tuple[Tensor, Tensor, Tensor, MixedLabels | None]


def check_augmentation(
    config: TrainConfig,
    *,
    shape: tuple[int, int, int],
    labels: Tensor | None = None,
    distillers: Mapping[str, object] | None = None,
    field: str = "train",
) -> None:
    """Raises UserError if images cannot be augmented as a training's configuration says.

    shape: (c, h, w) of an image; labels: labels of all training images, (n,); distillers: name -> distiller; field:
    name of the configuration's part, for the message.
    """
    channels, height, width = shape
    if config.trivial_augment and channels not in (1, 3):
        raise UserError(f"{field}.trivial_augment needs images of 1 or 3 channels, but they have {channels}: set false")
    if config.cutout >= max(height, width):
        raise UserError(
            f"{field}.cutout {config.cutout} may cover a whole image of {height}x{width}: give less than "
            f"{max(height, width)}"
        )
    if not config.mixes:
        return
    mixing = f"{field}.mixup and {field}.cutmix"
    if labels is not None and bool((labels == UNLABELLED).any()):
        raise UserError(f"{mixing} mix labels, but with data.unlabelled some images have none: set both to 0")
    for name, distiller in ({} if distillers is None else distillers).items():
        if getattr(distiller, "reads_labels", False):
            raise UserError(f"{name} needs one label for each image, but {mixing} mix two: set both to 0")


def cut_out(images: Tensor, middles: Tensor, side: int) -> Tensor:
    """Returns images with a square of each set to 0, which is the mean of normalised images (DeVries and Taylor 2017).

    images: (n, c, h, w), normalised; middles: (n, 2) integers, row and column of the pixel to the right of and below
    the middle of each image's square; side: the square's side in pixels. The square may extend beyond the image.

    >>> cut_out(torch.ones(1, 1, 3, 3), torch.tensor([[0, 2]]), 2)[0, 0]
    tensor([[1., 0., 0.],
            [1., 1., 1.],
            [1., 1., 1.]])
    """
    inside = []
    for axis, size in enumerate(images.shape[2:]):
        first = middles[:, axis : axis + 1] - side // 2
        places = torch.arange(size, device=images.device)
        inside.append((places >= first) & (places < first + side))
    rows, columns = inside
    return images.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0.0)


class StepImages:
    """Augments the images of each step as a training's configuration says.

    `rank` is the number of this process; each process draws its own random numbers.
    """

    def __init__(self, config: TrainConfig, data: ImageData, device: torch.device, *, rank: int = 0) -> None:
        self.config, self.device, self.rank = config, device, rank
        self.shape, self.size = data.input_shape, data.input_shape[1:]
        self.mean, self.std = (torch.tensor(v, device=device) for v in (data.mean, data.std))

    def epoch(self, batches: Iterable[Batch], number: int, *, steps: int, batch: int) -> Iterator[AugmentedBatch]:
        """Yields the augmented batches of an epoch, in which each of `steps` steps has `batch` images.

        `batches` yields (images (n, c, h, w), labels (n,), indices (n,)); `number` is the epoch's, on which the random
        numbers depend. A result is (images, labels, indices, mixed): the images in the training's memory format, one
        label for each, and both labels of each image if they were mixed, else None.
        """
        config = self.config
        random = np.random.default_rng(mix_seed(config.seed, number, _DRAWS, self.rank))
        together = 1
        if config.trivial_augment or config.cutout:
            together = steps_together(self.device, batch * math.prod(self.shape))
        trivial = self._draw_trivial(random, steps, batch, together) if config.trivial_augment else []
        middles = shares = torch.zeros(0)
        boxes: list[tuple[int, int, int, int] | None] = []
        if config.cutout:
            middles = torch.from_numpy(random.integers(0, self.size, (steps * batch, 2))).to(self.device)
        if config.mixes:
            mixes = [self._draw_mix(random) for _ in range(steps)]
            boxes = [box for _, box in mixes]
            shares = torch.tensor([share for share, _ in mixes], device=self.device)
        source, step = iter(batches), 0
        while group := list(islice(source, together)):
            images = group[0][0] if len(group) == 1 else torch.cat([each for each, _, _ in group])
            if trivial:
                images = self._augment(images, trivial[step // together])
            if config.cutout:
                images = cut_out(images, middles[step * batch : step * batch + len(images)], config.cutout)
            for own, (_, labels, indices) in zip(images.split(batch), group, strict=True):
                mixed = None
                if config.mixes:
                    mixed = MixedLabels(labels, labels.roll(1, 0), shares[step])
                    own, labels = self._mix(own, shares[step], boxes[step]), mixed.own
                if config.channels_last:
                    own = own.contiguous(memory_format=torch.channels_last)
                yield own, labels, indices, mixed
                step += 1

    def _draw_trivial(self, random: np.random.Generator, steps: int, batch: int, together: int) -> list[TrivialChoices]:
        """Draws TrivialAugment's operations; returns those of `together` steps at a time, on the device."""
        drawn = [draw_trivial(batch, random) for _ in range(steps)]
        joined = [join_trivial(drawn[first : first + together]) for first in range(0, steps, together)]
        # One copy for the whole epoch, so that no step waits for one.
        orders = torch.cat([choices.order for choices in joined]).to(self.device).split(together * batch)
        magnitudes = torch.cat([choices.magnitudes for choices in joined]).to(self.device).split(together * batch)
        counts = [choices.counts for choices in joined]
        return [TrivialChoices(*group) for group in zip(orders, counts, magnitudes, strict=True)]

    def _augment(self, images: Tensor, choices: TrivialChoices) -> Tensor:
        """Applies TrivialAugment to the pixels of normalised images."""
        pixels = (images * _channels(self.std) + _channels(self.mean)) * 255
        augmented = trivial_augment(pixels.round().clamp(0, 255).to(torch.uint8), choices)
        return normalise(augmented, self.mean, self.std)

    def _draw_mix(self, random: np.random.Generator) -> tuple[float, tuple[int, int, int, int] | None]:
        """Draws how the images of a step are mixed: the share of the first image, and the second's box for CutMix.

        The box is (top, bottom, left, right) in pixels; it is None for mixup, which mixes whole images.
        """
        config, (height, width) = self.config, self.size
        cuts = config.cutmix > 0 and (config.mixup == 0 or random.integers(0, 2) == 1)
        share = float(random.beta(*(config.cutmix if cuts else config.mixup,) * 2))
        if not cuts:
            return share, None
        middle, half = random.integers(0, self.size), ((1 - share) ** 0.5 * np.array(self.size)).astype(int) // 2
        (top, left), (bottom, right) = (np.clip(at, 0, self.size).tolist() for at in (middle - half, middle + half))
        return 1 - (bottom - top) * (right - left) / (height * width), (top, bottom, left, right)

    def _mix(self, images: Tensor, share: Tensor, box: tuple[int, int, int, int] | None) -> Tensor:
        """Mixes each image with the one before it in the batch, which is a random one because batches are shuffled."""
        second = images.roll(1, 0)
        if box is None:
            return share * images + (1 - share) * second
        top, bottom, left, right = box
        images = images.clone()
        images[:, :, top:bottom, left:right] = second[:, :, top:bottom, left:right]
        return images


def _channels(v: Tensor) -> Tensor:
    return v.reshape(1, -1, 1, 1)
