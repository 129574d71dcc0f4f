"""`RPReLU` against a loop, and where networks and `binarize` put it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.binarisers import normal
from torch import nn

from bnn_itrd.models import resnet20, vgg_small
from bnn_itrd.quant import RPReLU, binarize


def test_rprelu_against_a_loop() -> None:
    act = RPReLU(3).double()
    with torch.no_grad():
        for parameter, seed in zip(act.parameters(), (1, 2, 3), strict=True):
            parameter.copy_(normal(3, seed=seed))
    x = normal(2, 3, 4, 5, seed=4).requires_grad_()
    y = act(x).detach().numpy()
    for i in np.ndindex(*x.shape):
        shifted = x[i].item() + act.before[i[1]].item()
        want = shifted if shifted >= 0 else float(act.slope[i[1]]) * shifted
        assert y[i] == pytest.approx(want + float(act.after[i[1]]))
    assert torch.autograd.gradcheck(act, (x,))
    assert act(normal(4, 3)).shape == (4, 3)
    with pytest.raises(ValueError, match="channels must be >= 1, got 0"):
        RPReLU(0)


def test_models_and_binarize_take_the_nonlinearity() -> None:
    for model, width in ((resnet20(binary="reactnet", input_shape=(3, 8, 8)), 16), (vgg_small(binary="reactnet"), 128)):
        acts = [m for m in model.modules() if isinstance(m, RPReLU)]
        assert acts[0].channels == width and not any(isinstance(m, nn.Hardtanh) for m in model.modules())
    plain = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Conv2d(8, 6, 3), nn.Flatten(),
        nn.Linear(6 * 4, 3),
    )  # fmt: skip
    made, report = binarize(plain, "reactnet")
    acts = [m for m in made.modules() if isinstance(m, RPReLU)]
    assert [a.channels for a in acts] == [8] and "rprelu: feeds 4" in str(report)
    assert made(normal(2, 3, 10, 10, dtype=torch.float32)).shape == (2, 3)
    unknown = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Unflatten(1, (8,)), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.Flatten())
    made, report = binarize(unknown, "reactnet", keep_last=False)
    assert any("rprelu needs a number of channels, unknown here" in w for w in report.warnings)
    rotated = binarize(plain, "rbnn").model.get_submodule("4")
    torch.testing.assert_close(
        rotated.weight_binarizer.alpha.detach(), plain[4].weight.detach().abs().flatten(1).mean(1)
    )
