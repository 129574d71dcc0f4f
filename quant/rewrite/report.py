"""The result of `binarize`: the network, and a report of the changes."""

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
    """One row of the report: what became of a layer or of one call of an activation, and why.

    path: the module's path, or one that ends in () where a function is called; kind: the class or function.
    """

    path: str
    kind: str
    action: Action
    reason: str


@dataclass
class Report:
    """A report of the changes that `binarize` made, in the order of execution; ``print(report)`` shows a table.

    warnings: problems to correct in the network; unknown: layers whose input may always have the same sign, because
    `binarize` does not know an operation in front of them; weights: the number of elements in parameters with two or
    more axes; binary_weights: how many of these are binary; verdict: whether the network can be expected to learn
    ("fit", "doubtful" or "does not work as it is"), and why; traced: False where torch.fx could not trace the network;
    reason: the tracer's message.
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
            lines.append(f"nothing changed, because torch.fx cannot trace the network: {self.reason}; {WAY_OUT}")
        actions = [change.action for change in self.changes]
        counts = ", ".join(f"{actions.count(a)} {a}" for a in ("binarised", "replaced", "kept"))
        share = self.binary_weights / max(self.weights, 1)
        lines.append(f"{counts}; binary weights: {self.binary_weights:,} of {self.weights:,} ({share:.1%})")
        lines += [f"warning: {w}" for w in self.warnings] + [f"unknown: {u}" for u in self.unknown]
        return "\n".join([*lines, f"verdict: {self.verdict}"])


class Binarized(NamedTuple):
    """The binary copy of a network, and the report of the changes."""

    model: nn.Module
    report: Report
