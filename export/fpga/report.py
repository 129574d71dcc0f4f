"""The report that `check_fpga` returns: which layers of a network FINN can map to hardware."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

__all__ = ["FpgaLayer", "FpgaReport"]


@dataclass(frozen=True)
class FpgaLayer:
    """One layer of the report.

    path: its path in the network; operation: what it computes, in words; maps: whether FINN can map it to hardware;
    note: the hardware that it becomes, or the reason why it does not map; ways_out: what to do if it does not.

    >>> FpgaLayer("conv1", "binary 3x3 conv", True, "XNOR-popcount matrix unit").ways_out
    ()
    """

    path: str
    operation: str
    maps: bool
    note: str
    ways_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class FpgaReport:
    """The report of `check_fpga`, with the layers of a network in order; ``str()`` returns it as a table.

    >>> report = FpgaReport((FpgaLayer("pool", "MaxPool", True, "StreamingMaxPool"),))
    >>> report.ok, len(report.failures)
    (True, 0)
    """

    layers: tuple[FpgaLayer, ...]

    @property
    def ok(self) -> bool:
        """Returns whether FINN can map every layer to hardware."""
        return all(layer.maps for layer in self.layers)

    @property
    def failures(self) -> tuple[FpgaLayer, ...]:
        """Returns the layers that FINN cannot map to hardware, in order."""
        return tuple(layer for layer in self.layers if not layer.maps)

    @property
    def ways_out(self) -> dict[str, int]:
        """Returns what to do about the failures: advice -> number of layers that need it, the most frequent first."""
        return dict(Counter(way for layer in self.failures for way in layer.ways_out).most_common())

    def __str__(self) -> str:
        header = ("layer", "operation", "FINN", "note")
        rows = [(layer.path, layer.operation, "yes" if layer.maps else "NO", layer.note) for layer in self.layers]
        widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
        lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in (header, *rows)]
        lines.insert(1, "  ".join("-" * w for w in widths))
        if self.ok:
            lines.append("the one layer maps" if len(self.layers) == 1 else f"all {len(self.layers)} layers map")
        else:
            lines.append(f"{len(self.failures)} of {len(self.layers)} layers do not map:")
            lines += [f"- {way} ({count} layer{'s' * (count > 1)})" for way, count in self.ways_out.items()]
        return "\n".join(line.rstrip() for line in lines)
