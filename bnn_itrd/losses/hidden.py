"""Losses on the hidden states of transformers: their distance, that of their Gram matrices, and their angle."""

import torch
from einops import einsum
from torch import Tensor

from ._inputs import as_float, check_same_shape
from ._scale import unit

__all__ = ["hidden_cosine_loss", "hidden_mmd_loss", "hidden_mse_loss"]


def hidden_mse_loss(z_s: Tensor, z_t: Tensor) -> Tensor:
    """Returns the mean squared difference of hidden states, over tokens and features; (n, d), (n, d) -> ().

    The rows are tokens, without padding. Half-precision inputs are computed in float32. Raises ValueError on other
    shapes. TextBrewer (Yang et al. 2020) calls it hidden_mse.

    >>> hidden_mse_loss(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 0.0]])).item()
    2.5
    """
    check_same_shape("z_s", z_s, "z_t", z_t, "(n, d)")
    with torch.autocast(z_s.device.type, enabled=False):
        z_s, z_t = as_float(z_s, z_t)
        return (z_s - z_t).square().mean()


def hidden_mmd_loss(hidden_s: Tensor, hidden_t: Tensor, mask: Tensor) -> Tensor:
    """Returns how much the products between tokens' states differ; (b, l, d_s), (b, l, d_t), (b, l) -> ().

    It is ``mean (H_s H_s^T / d_s - H_t H_t^T / d_t)^2`` over all pairs of tokens in the same sequence, where H is (l,
    d). mask: 0 for padding, which is left out, and not 0 for tokens. Half-precision inputs are computed in float32.
    Raises ValueError on other shapes. TextBrewer (Yang et al. 2020) calls it mmd, and smmd in its lists of matches.

    >>> mask = torch.ones(1, 2)
    >>> hidden_mmd_loss(torch.tensor([[[1.0], [0.0]]]), torch.zeros(1, 2, 3), mask).item()
    0.25
    """
    if hidden_s.ndim != 3 or hidden_t.ndim != 3 or not hidden_s.shape[:2] == hidden_t.shape[:2] == mask.shape:
        shapes = ", ".join(str(tuple(x.shape)) for x in (hidden_s, hidden_t, mask))
        raise ValueError(f"hidden_s, hidden_t and mask must be (b, l, d_s), (b, l, d_t) and (b, l), got {shapes}")
    with torch.autocast(hidden_s.device.type, enabled=False):
        hidden_s, hidden_t = as_float(hidden_s, hidden_t)
        grams = [einsum(h, h, "b i d, b j d -> b i j") / h.shape[-1] for h in (hidden_s, hidden_t)]
        pairs = einsum(mask, mask, "b i, b j -> b i j") != 0
        return (grams[0] - grams[1])[pairs].square().mean()


def hidden_cosine_loss(z_s: Tensor, z_t: Tensor) -> Tensor:
    """Returns the mean cosine distance of hidden states, 1 - cos(z_s, z_t), over tokens; (n, d), (n, d) -> ().

    It lies between 0 and 2. The rows are tokens, without padding. A zero row has a cosine of 0, and a zero gradient.
    Half-precision inputs are computed in float32. Raises ValueError on other shapes. DistilBERT (Sanh et al. 2019,
    sec. 3) calls it L_cos.

    >>> round(hidden_cosine_loss(torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0, 4.0]])).item(), 4)
    0.4
    """
    check_same_shape("z_s", z_s, "z_t", z_t, "(n, d)")
    with torch.autocast(z_s.device.type, enabled=False):
        z_s, z_t = as_float(z_s, z_t)
        return 1 - (unit(z_s) * unit(z_t)).sum(1).mean()
