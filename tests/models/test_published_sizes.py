"""The distillation literature's networks: parameters and features are those of the published code; the docs say so."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from bnn_itrd.models import MODELS, observe

# RepDistiller's networks (github.com/HobbitLong/RepDistiller, commit b84f547) with 100 classes: parameters counted on
# its `model_dict`, and the shapes of its features for a 3 x 32 x 32 image, without the first (the stem's).
NARROW = ([(16, 32, 32), (32, 16, 16), (64, 8, 8)], 64)
WIDER = ([(32, 32, 32), (64, 16, 16), (128, 8, 8)], 128)
TIMES_FOUR = ([(64, 32, 32), (128, 16, 16), (256, 8, 8)], 256)
VGGS = ([(128, 16, 16), (256, 8, 8), (512, 4, 4), (512, 4, 4)], 512)
PUBLISHED: dict[str, tuple[int, tuple[list[tuple[int, ...]], int]]] = {
    "resnet8": (83_892, NARROW),
    "resnet14": (181_108, NARROW),
    "resnet20": (278_324, NARROW),
    "resnet32": (472_756, NARROW),
    "resnet44": (667_188, NARROW),
    "resnet56": (861_620, NARROW),
    "resnet110": (1_736_564, NARROW),
    "resnet8x4": (1_233_540, TIMES_FOUR),
    "resnet32x4": (7_433_860, TIMES_FOUR),
    "resnet50": (23_705_252, ([(256, 32, 32), (512, 16, 16), (1024, 8, 8), (2048, 4, 4)], 2048)),
    "wrn_16_1": (180_916, NARROW),
    "wrn_16_2": (703_284, WIDER),
    "wrn_40_1": (569_780, NARROW),
    "wrn_40_2": (2_255_156, WIDER),
    "vgg8": (3_965_028, VGGS),
    "vgg11": (9_277_284, VGGS),
    "vgg13": (9_462_180, VGGS),
    "vgg16": (14_774_436, VGGS),
    "vgg19": (20_086_692, VGGS),
    "mobilenet_v2_half": (812_836, ([(12, 16, 16), (16, 8, 8), (48, 4, 4), (160, 2, 2)], 1280)),
    "shufflenet_v1": (949_258, ([(240, 16, 16), (480, 8, 8), (960, 4, 4)], 960)),
    "shufflenet_v2": (1_355_528, ([(116, 16, 16), (232, 8, 8), (464, 4, 4)], 1024)),
}
NEW = sorted(set(PUBLISHED) - {"resnet20", "resnet32", "resnet56", "resnet110"})


def published_form(name: str, **options: object) -> nn.Module:
    """In RepDistiller's form: the family with 16-32-64 channels has option A for its shortcuts by default."""
    narrow = name.startswith("resnet") and PUBLISHED[name][1] is NARROW
    return MODELS[name](100, **({"shortcut": "projection"} if narrow else {}), **options)


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_parameters_equal_the_published_forms(name: str) -> None:
    with torch.device("meta"):
        model = published_form(name)
    assert sum(p.numel() for p in model.parameters()) == PUBLISHED[name][0]


@pytest.mark.parametrize("name", NEW)
def test_stages_and_representation_are_the_published_features(name: str) -> None:
    with torch.device("meta"):
        model = published_form(name).eval()
        out = observe(model)(torch.empty(2, 3, 32, 32))
    shapes, width = PUBLISHED[name][1]
    assert [tuple(stage.shape) for stage in out.stages] == [(2, *shape) for shape in shapes]
    assert out.representation.shape == (2, width) and out.logits.shape == (2, 100)


@pytest.mark.parametrize("name", NEW)
def test_teacher_and_student_have_the_same_maps(name: str) -> None:
    def maps(binary: str | None) -> list[tuple[int, ...]]:
        with torch.device("meta"):
            out = observe(MODELS[name](7, binary=binary).eval())(torch.empty(1, 3, 32, 32))
        return [*(tuple(s.shape) for s in out.stages), tuple(out.representation.shape)]

    assert maps("recu") == maps(None)


def test_the_documented_sizes() -> None:
    text = (Path(__file__).parents[2] / "docs" / "reference" / "networks.md").read_text()
    rows = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    sizes = {row[0]: int(row[1].replace(",", "")) for row in rows if row and row[0] in MODELS and row[1][0].isdigit()}
    assert len(sizes) >= 12
    for name, count in sizes.items():
        with torch.device("meta"):
            assert sum(p.numel() for p in MODELS[name](100).parameters()) == count, name
    assert all(sizes[name] == PUBLISHED[name][0] for name in set(sizes) & set(NEW))
