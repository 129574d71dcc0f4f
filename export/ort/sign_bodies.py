"""Function bodies of `Sign` and `RSign`, and the last steps of a convolution that returns signs."""

from __future__ import annotations

__all__ = ["SIGN_STEPS", "ZERO_STEPS", "sign_function"]

# Steps from a float {0} to the code {1} of its sign: 2 (for +1) where it is at least {2}, else 0 (for -1).
SIGN_STEPS = """
  {0}_plus = Constant <value = uint8 {{2}}> ()
  {0}_minus = Constant <value = uint8 {{0}}> ()
  {0}_hit = GreaterOrEqual ({0}, {2})
  {1} = Where ({0}_hit, {0}_plus, {0}_minus)
"""
# The constant 0 as the level for a value {0}.
ZERO_STEPS = """
  {0}_zero = Constant <value = float {{0.}}> ()
"""


def sign_function(name: str) -> str:
    """Returns the function ``Sign`` or ``RSign``, in onnx's text form."""
    if name == "Sign":
        return "Sign (x) => (t) {" + ZERO_STEPS.format("x") + SIGN_STEPS.format("x", "t", "x_zero") + "}"
    return "RSign (x, level) => (t) {" + SIGN_STEPS.format("x", "t", "level") + "}"
