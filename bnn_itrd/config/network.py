"""The definition a teacher and its students share."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from bnn_itrd.errors import UserError, require

__all__ = ["NetworkConfig"]

_WIDEST = 64  # times the published width; `build` counts the weights beside it


@dataclass(frozen=True)
class NetworkConfig:
    """The definition a teacher and its students share. The options that change the binary form only say so.

    Args:
        name: resnet18, 34, 50; resnet8, 14, 20, 32, 44, 56, 110; resnet8x4, resnet32x4; wrn_16_1, 16_2, 40_1, 40_2;
            vgg8, 9, 11, 13, 16, 19; vgg_small; mobilenet_v2, mobilenet_v2_half; shufflenet_v1, shufflenet_v2;
            torchvision:NAME or timm:NAME: that library's, untrained, made binary by `quant.binarize`
        teacher: the teacher's network where it is another one; students and teacher then share the width alone
        width: a factor on the number of channels of teacher and students (not of vgg_small and shufflenet_v1)
        per_conv: students: one shortcut per convolution; the network's published form by default
        float_downsample: students: average pool and a full-precision 1x1 convolution where the shape changes
        stem_activation: students: one behind the stem's BatchNorm; the published form by default (residual networks but
            wide ones)
        padding_value: students: what the borders hold after the sign: 0, +1 or -1
        shortcut: students: projection, pad, avgpool or binary; the network's own by default (residual networks)
        teacher_shortcut: teacher: pad, projection or avgpool; the network's own by default (residual networks). In the
            folder of one member: that network's, where it is in full precision
        weights: students in full precision: a file of trained weights that they begin with, all but the classifier:
            the state dict of the same network (.pth or .safetensors), of vgg9 that of torchvision's vgg11_bn
        residual_bits: students: bits of the residual stream's integers, 2 to 8; floats by default
        first_last_bits: students: bits of the first convolution and the classifier, 2 to 8; floats by default
        norm_before_pool: students: BatchNorm in front of the MaxPool, not behind it (vgg_small), as FPGAs need it
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
        """The teacher's definition by itself."""
        if self.teacher is None:
            return dataclasses.replace(self, weights=None)
        return NetworkConfig(name=self.teacher, width=self.width, teacher_shortcut=self.teacher_shortcut)

    def of_students(self, *, binary: bool) -> NetworkConfig:
        """The students' definition by itself. Raises UserError on an option that full precision does not have."""
        if binary:
            rule = "none with scheme.binary true; binary students begin with their teacher's: scheme.from_teacher"
            require(self.weights is None, "network.weights", rule, self.weights)
            return self if self.teacher is None else dataclasses.replace(self, teacher=None, teacher_shortcut=None)
        alone = NetworkConfig(name=self.name, width=self.width, teacher_shortcut=self.shortcut, weights=self.weights)
        for field_ in dataclasses.fields(self):
            given = field_.name not in ("name", "width", "shortcut", "teacher_shortcut", "teacher", "weights")
            if given and getattr(self, field_.name) != field_.default:
                raise UserError(f"network.{field_.name} is an option of binary students, and scheme.binary is false")
        return alone
