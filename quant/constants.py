"""Numbers that methods and their GPU kernels share."""

from __future__ import annotations

import math

__all__ = ["EPS", "RECU_SPREAD"]

# It is added to a variance of activations, or of ReCU's weights, before its root divides.
EPS = 1e-5
# The standard deviation that ReCU gives the weights of a filter, as in its published code; in the paper it is 1.
RECU_SPREAD = 2 * math.sqrt(2)
