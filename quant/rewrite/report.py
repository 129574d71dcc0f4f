"""What `binarize` gives back: the network, and what became of each of its layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from torch import nn

__all__ = ["WAY_OUT", "Action", "Binarized", "Change", "Report"]

Action = Literal["binarised", "kept", "replaced"]
WAY_OUT = (
    "make its forward traceable by torch.fx (no branch on values, the same steps in training and in "
    "evaluation), or build it with BinaryConv2d and BinaryLinear"
)


class Change(NamedTuple):
    """What became of a layer or one call of an activation; `path` ends in () where a function is called."""

    path: str
    kind: str
    action: Action
    reason: str


@dataclass
class Report:
    """What `binarize` did, in the order of execution; ``print(report)`` is a table.

    warnings say what should be mended, unknown of which layers nobody can say whether they read values of both signs,
    since an operation in front of them is not known here. weights counts the elements of all parameters with two axes
    or more, binary_weights the binary ones among them. verdict says in a sentence whether such a network can learn in
    1 bit: "fit", "doubtful" or "does not work as it is", and why. traced is False where the network could not be
    followed, with the tracer's words in `reason`.
    """

    changes: list[Change]
    warnings: list[str]
    unknown: list[str]
    weights: int
    binary_weights: int
    verdict: str
    traced: bool = True
    reason: str = ""

    def __str__(self) -> str:
        rows = [Change._fields, *self.changes] if self.changes else []
        widths = [max(len(row[i]) for row in rows) for i in range(3)] if rows else []
        lines = ["  ".join([*map(str.ljust, row[:3], widths), row[3]]) for row in rows]
        if not self.traced:
            lines.append(f"nothing changed, the network is not traceable: {self.reason}; {WAY_OUT}")
        actions = [change.action for change in self.changes]
        counts = ", ".join(f"{actions.count(a)} {a}" for a in ("binarised", "replaced", "kept"))
        share = self.binary_weights / max(self.weights, 1)
        lines.append(f"{counts}; binary weights: {self.binary_weights:,} of {self.weights:,} ({share:.1%})")
        lines += [f"warning: {w}" for w in self.warnings] + [f"unknown: {u}" for u in self.unknown]
        return "\n".join([*lines, f"verdict: {self.verdict}"])


class Binarized(NamedTuple):
    """The binary copy of a network, and what was changed in it."""

    model: nn.Module
    report: Report
