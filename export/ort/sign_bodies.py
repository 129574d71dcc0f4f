"""Text of the ONNX functions ``Sign`` and ``RSign``, and of the last steps of a convolution that returns signs."""

from __future__ import annotations

__all__ = ["SIGN_STEPS", "ZERO_STEPS", "sign_function"]

# Steps that compute {1} from the floats {0}: 2, which stands for +1, where {0} is at least {2}, else 0, which stands
# for -1.
SIGN_STEPS = """
  {0}_plus = Constant <value = uint8 {{2}}> ()
  {0}_minus = Constant <value = uint8 {{0}}> ()
  {0}_hit = GreaterOrEqual ({0}, {2})
  {1} = Where ({0}_hit, {0}_plus, {0}_minus)
"""
# A step that makes the constant 0, with which {0} is compared.
ZERO_STEPS = """
  {0}_zero = Constant <value = float {{0.}}> ()
"""


def sign_function(name: str) -> str:
    """Returns the ONNX function for ``Sign`` or ``RSign`` (x >= level) in ONNX's text syntax."""
    if name == "Sign":
        return "Sign (x) => (t) {" + ZERO_STEPS.format("x") + SIGN_STEPS.format("x", "t", "x_zero") + "}"
    return "RSign (x, level) => (t) {" + SIGN_STEPS.format("x", "t", "level") + "}"
