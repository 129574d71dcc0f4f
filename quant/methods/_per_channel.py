"""The base class of nonlinearities that have learned parameters for each channel: RPReLU and Maxout."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["PerChannel"]


class PerChannel(nn.Module):
    """A nonlinearity with learned parameters (c,) for each channel, (n, c, ...) -> (n, c, ...).

    Raises ValueError where channels < 1.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        if channels < 1:
            raise ValueError(f"channels must be >= 1, got {channels}")
        self.channels = channels

    def extra_repr(self) -> str:
        return str(self.channels)

    def per_channel(self, v: nn.Parameter, x: Tensor) -> Tensor:
        """Returns a parameter v (c,), reshaped so that it broadcasts over axis 1 of x."""
        return v.reshape(-1, *([1] * (x.dim() - 2)))
