"""Checks arguments for the losses, and casts tensors to the precision in which losses are computed."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def check_positive(name: str, value: float) -> None:
    """Raises ValueError unless the hyperparameter is a finite number above 0."""
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{name} must be > 0 and finite, got {value}")


def check_weight(name: str, value: float) -> None:
    """Raises ValueError unless the loss weight is a finite number, 0 or above."""
    if not (value >= 0 and math.isfinite(value)):
        raise ValueError(f"{name} must be >= 0 and finite, got {value}")


def check_count(name: str, value: int) -> None:
    """Raises ValueError unless the size or number is an integer >= 1."""
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be an integer >= 1, got {value}")


def check_rows(name: str, z: Tensor, dim: int) -> None:
    """Raises ValueError unless z is (n, dim) with n >= 1."""
    if z.ndim != 2 or z.shape[1] != dim or len(z) == 0:
        raise ValueError(f"{name} must be (n, {dim}) with n >= 1, got {tuple(z.shape)}")


def check_log_odds(log_odds: Tensor) -> None:
    """Raises ValueError unless the scores are (n, 1 + K) with n, K >= 1."""
    if log_odds.ndim != 2 or len(log_odds) < 1 or log_odds.shape[1] < 2:
        raise ValueError(f"log_odds must be (n, 1 + K) with n, K >= 1, got {tuple(log_odds.shape)}")


def check_matrix(name: str, x: Tensor) -> None:
    """Raises ValueError unless x is a real 2-D tensor without an empty axis."""
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(f"{name} must be 2-D without an empty axis, got shape {tuple(x.shape)}")
    if x.is_complex():
        raise ValueError(f"{name} must be real, got {x.dtype}")


def check_same_samples(z_s: Tensor, z_t: Tensor) -> None:
    """Raises ValueError unless both are matrices (see `check_matrix`) with equally many rows."""
    check_matrix("z_s", z_s)
    check_matrix("z_t", z_t)
    if z_s.shape[0] != z_t.shape[0]:
        raise ValueError(f"z_s and z_t must have the same batch size, got {tuple(z_s.shape)} and {tuple(z_t.shape)}")


def check_same_shape(name_a: str, a: Tensor, name_b: str, b: Tensor, axes: str) -> None:
    """Raises ValueError unless a and b are matrices of one shape; axes: its name in the message, such as "(n, d)"."""
    check_matrix(name_a, a)
    check_matrix(name_b, b)
    if a.shape != b.shape:
        raise ValueError(
            f"{name_a} and {name_b} must have the same shape {axes}, got {tuple(a.shape)} and {tuple(b.shape)}"
        )


def as_float(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Returns the tensors, all cast to the widest dtype among them, and at least to float32."""
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return tuple(tensor.to(dtype) for tensor in tensors)


def apply_linear(layer: nn.Linear, z: Tensor) -> Tensor:
    """Applies a linear layer with bias to rows, (n, d) -> (n, k), in the widest dtype of both, at least float32.

    The caller disables autocast.
    """
    return F.linear(*as_float(z, layer.weight, layer.bias))
