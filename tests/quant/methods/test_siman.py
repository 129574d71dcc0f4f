"""SiMaN's weights: the larger half of each filter is +1, also at ties and with an odd number of them."""

from __future__ import annotations

import torch

from bnn_itrd.quant import Scheme


def test_siman_ties_and_odd_filters() -> None:
    binarizer = Scheme("siman").make_weight(2)
    assert binarizer(torch.tensor([[3.0, -2.0, 1.0], [1.0, 1.0, 0.5]])).signs.tolist() == [[1, -1, -1], [1, 1, -1]]
    assert binarizer(torch.tensor([[0.5], [-0.5]])).signs.tolist() == [[1], [1]]
