"""The settings of the network of a teacher and its students."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from bnn_itrd.errors import UserError, require

__all__ = ["NetworkConfig"]

_WIDEST = 64  # the largest factor on the published width; `build` limits the number of weights as well


@dataclass(frozen=True)
class NetworkConfig:
    """The settings of the network of a teacher and its students.

    A field whose text begins with "students" or "teacher" applies to these alone.

    >>> NetworkConfig(name="resnet20", teacher="resnet56").of_teacher().name
    'resnet56'

    Raises FieldError on a value that is out of its range.

    Args:
        name: resnet18, 34, 50; resnet8, 14, 20, 32, 44, 56, 110; resnet8x4, resnet32x4; wrn_16_1, 16_2, 40_1, 40_2;
            vgg8, 9, 11, 13, 16, 19; vgg_small; mobilenet_v2, mobilenet_v2_half; shufflenet_v1, shufflenet_v2;
            torchvision:NAME or timm:NAME: that library's network with random weights, made binary for the students
        teacher: the teacher's network if it is a different one; only `width` then applies to both
        width: a factor on the number of channels of teacher and students (not of vgg_small and shufflenet_v1)
        per_conv: students: one shortcut around each convolution, instead of one around each block; as in the network's
            paper by default
        float_downsample: students: average pool and a full-precision 1x1 convolution where the shape changes
        stem_activation: students, in residual networks but wide ones: an activation after the first convolution and its
            BatchNorm; as in the network's paper by default
        padding_value: students: value of the padding of a binary convolution's input: 0, +1 or -1
        shortcut: students, in residual networks: shortcut where the shape changes: projection, pad, avgpool or binary;
            the network's own by default
        teacher_shortcut: teacher, in residual networks: shortcut where the shape changes: pad, projection or avgpool;
            the network's own by default. In config.yaml of one full-precision network: that network's shortcut
        weights: students in full precision: file of trained weights from which all layers but the classifier start. It
            holds the state dict of the same network (.pth or .safetensors), or for vgg9 that of torchvision's vgg11_bn
        residual_bits: students: round what the residual blocks add up to integers of so many bits, 2 to 8; floats by
            default
        first_last_bits: students: bits of the first convolution and the classifier, 2 to 8; floats by default
        norm_before_pool: students: BatchNorm before the MaxPool instead of after it (vgg_small), as FPGAs need it
    """

    name: str = "resnet20"
    width: float = 1.0
    per_conv: bool | None = None
    float_downsample: bool = False
    padding_value: int = 0
    shortcut: str | None = None
    residual_bits: int | None = None
    first_last_bits: int | None = None
    norm_before_pool: bool = False
    teacher_shortcut: str | None = None
    teacher: str | None = None
    weights: str | None = None
    stem_activation: bool | None = None

    def __post_init__(self) -> None:
        require(0 < self.width <= _WIDEST, "network.width", f"in (0, {_WIDEST}]", self.width)
        require(self.padding_value in (-1, 0, 1), "network.padding_value", "-1, 0 or 1", self.padding_value)
        for name in ("residual_bits", "first_last_bits"):
            bits = getattr(self, name)
            require(bits is None or 2 <= bits <= 8, f"network.{name}", "in [2, 8]", bits)

    def of_teacher(self) -> NetworkConfig:
        """Returns the settings with which the teacher's network alone is built."""
        if self.teacher is None:
            return dataclasses.replace(self, weights=None)
        return NetworkConfig(name=self.teacher, width=self.width, teacher_shortcut=self.teacher_shortcut)

    def of_students(self, *, binary: bool) -> NetworkConfig:
        """Returns the settings with which the students' network alone is built; binary: whether students are binary.

        Raises UserError if full-precision students have an option for binary ones, or binary ones have `weights`.
        """
        if binary:
            rule = "left out: only full-precision students start from a file (binary ones: --scheme.from_teacher true)"
            require(self.weights is None, "network.weights", rule, self.weights)
            return self if self.teacher is None else dataclasses.replace(self, teacher=None, teacher_shortcut=None)
        alone = NetworkConfig(name=self.name, width=self.width, teacher_shortcut=self.shortcut, weights=self.weights)
        for field_ in dataclasses.fields(self):
            given = field_.name not in ("name", "width", "shortcut", "teacher_shortcut", "teacher", "weights")
            if given and getattr(self, field_.name) != field_.default:
                raise UserError(
                    f"network.{field_.name} is an option of binary students, but scheme.binary is false: leave it out"
                )
        return alone
