"""Functions that turn a recipe into a configuration, tables of the papers, and random images in place of data."""

from __future__ import annotations

import torch

from bnn_itrd import recipes
from bnn_itrd.config.parse import run_config
from bnn_itrd.config.run import RunConfig
from bnn_itrd.config.train import FabricConfig, LogConfig
from bnn_itrd.data.splits import ImageData
from bnn_itrd.data.tensor_split import TensorSplit

CPU = FabricConfig(accelerator="cpu", threads=1)
QUIET = LogConfig(tensorboard=False, progress=False)
# Miles et al. 2022, table 1: (teacher, student, alpha by sec. 5.1, learning rate by Tian et al. 2020).
TABLE_1 = [
    ("wrn_40_2", "wrn_16_2", 1.01, 0.05),
    ("wrn_40_2", "wrn_40_1", 1.01, 0.05),
    ("resnet56", "resnet20", 1.01, 0.05),
    ("resnet110", "resnet20", 1.01, 0.05),
    ("resnet110", "resnet32", 1.01, 0.05),
    ("resnet32x4", "resnet8x4", 1.01, 0.05),
    ("vgg13", "vgg8", 1.01, 0.05),
    ("vgg13", "mobilenet_v2_half", 1.5, 0.01),
    ("resnet50", "mobilenet_v2_half", 1.5, 0.01),
    ("resnet50", "vgg8", 1.5, 0.05),
    ("resnet32x4", "shufflenet_v1", 1.5, 0.01),
    ("resnet32x4", "shufflenet_v2", 1.5, 0.01),
    ("wrn_40_2", "shufflenet_v1", 1.5, 0.01),
]
# The methods that ITRD's table 1 and the poster's table 3 compare, by the names of the students in our recipes.
ROWS = [
    *("plain", "kd", "fitnet", "at", "sp", "cc", "rkd", "pkt", "ft", "nst", "crd", "wcord", "reviewkd"),
    *("corr", "itrd", "srd", "dkd", "srd-dkd"),
]


def config(name: str, *arguments: str) -> RunConfig:
    return run_config("run", "", recipes.read(name), arguments, extra={})[0]


def synthetic(classes: int, shape: tuple[int, int, int], count: int = 4) -> ImageData:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=generator)
    mean, std = torch.full((shape[0],), 0.5), torch.full((shape[0],), 0.25)
    split = TensorSplit(images, torch.arange(count) % classes, mean, std, crop_padding=0, flip=False)
    names = tuple(f"c{i}" for i in range(classes))
    return ImageData("synthetic", names, (0.5,) * shape[0], (0.25,) * shape[0], shape, split, None, split)
