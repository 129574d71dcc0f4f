"""A scheme's options reach its binarisers; bad ones are refused."""

from __future__ import annotations

import math
from typing import Any

import pytest

from bnn_itrd.quant import BinaryConv2d, Scheme


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": "irnet", "t_min": 0.0}, "t_min must be > 0, got 0.0"),
        ({"activation": "irnet", "t_min": 2.0, "t_max": 1.0}, "t_max must be >= t_min = 2.0, got 1.0"),
        ({"weight": "biper", "omega": 0.0}, "omega must be > 0, got 0.0"),
        ({"weight": "biper", "tau_min": -1.0}, "tau_min must be >= 0, got -1.0"),
        ({"weight": "biper_sine", "tau_max": 0.01}, "tau_max must be >= tau_min = 0.037, got 0.01"),
        ({"activation": "reste", "o_max": 0.5}, "o_max must be >= 1, got 0.5"),
        ({"rad": -1.0}, "rad must be >= 0, got -1.0"),
        ({"rad": math.nan}, "rad must be >= 0, got nan"),
        ({"rad_until": 1.5}, r"rad_until must be in \[0, 1\], got 1.5"),
        ({"centre": True}, "centre=True needs activation rbnn or siman, got 'recu'"),
        (
            {"nonlinearity": "relu"},
            "unknown nonlinearity 'relu', did you mean 'rprelu'. Expected one of hardtanh, rprelu, maxout",
        ),
        ({"activation": "rsig"}, "unknown activation binariser 'rsig'.*did you mean 'rsign'"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Scheme(**options)


def test_options_reach_their_binarisers() -> None:
    layer = BinaryConv2d(2, 2, 1, scheme=Scheme("irnet", "reste", t_min=0.1, t_max=5.0, o_max=4.0))
    assert (layer.weight_binarizer.t_min, layer.weight_binarizer.t_max) == (0.1, 5.0)
    assert layer.activation_binarizer.o_max == 4.0
    assert Scheme("xnor", "clipped", t_min=-1.0, o_max=0.0).t_min == -1.0, "others have no t"
