"""A script that draws several trainings in one figure: accuracy over minutes or epochs, ReCU's tau, and sign flips.

python -m bnn_itrd.experiments.curves results/cifar10-resnet20-* --out curves.png [--epochs]
"""

from __future__ import annotations

import re
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from bnn_itrd.errors import UserError
from bnn_itrd.plots.colours import COLOURS, colour_index, colour_repeats
from bnn_itrd.plots.files import write_atomically
from bnn_itrd.plots.values import Point
from bnn_itrd.training.metrics import read_metrics
from bnn_itrd.yaml_files import read_yaml

__all__ = ["epochs_curve", "main", "minutes_curve", "plot_runs", "tau_curve"]

Row = dict[str, Any]


def minutes_curve(rows: Sequence[Row]) -> list[Point]:
    """Returns (minutes of training until its end, top-1 in percent) for each epoch that ended with an evaluation.

    rows: those of metrics.csv. Every epoch counts as long as the median epoch, because other work on the machine makes
    some epochs longer, which says nothing about the training.
    """
    minutes = statistics.median(row["seconds"] for row in rows) / 60
    return [(minutes * row["epoch"], row["top1"]) for row in rows if row["top1"] is not None]


def _first_stage_epochs(config: dict[str, Any]) -> int:
    """Returns the number of epochs of the first stage of two-stage training, 0 without it; metrics.csv omits them."""
    return int((config.get("scheme") or {}).get("first_stage_epochs") or 0)


def tau_curve(config: dict[str, Any], epochs: int) -> list[Point]:
    """Returns (epoch, ReCU's tau at its end) for a network whose weights are binarised by ReCU; [] for any other.

    config: that of the network's folder; epochs: the number of epochs, without those of a first stage.
    """
    from bnn_itrd.quant import recu_tau

    scheme = config.get("scheme") or {}
    if scheme.get("weight") != "recu":
        return []
    ends = {key: float(scheme[key]) for key in ("tau_min", "tau_max")}
    first = _first_stage_epochs(config)
    return [(float(first + e), float(recu_tau(torch.tensor(e / epochs), **ends))) for e in range(epochs + 1)]


def epochs_curve(rows: Sequence[Row], before: int = 0) -> list[Point]:
    """Returns (epoch, top-1 in percent) for each epoch that ended with an evaluation.

    rows: those of metrics.csv; before: the number of epochs of a first stage, which is added to each epoch.
    """
    return [(before + row["epoch"], row["top1"]) for row in rows if row["top1"] is not None]


def _flips(rows: Sequence[Row], before: int) -> list[Point]:
    """Returns (epoch, percent of binary weights whose sign flipped in it), where metrics.csv has that number."""
    return [(before + row["epoch"], row["sign_flips"]) for row in rows if row.get("sign_flips") is not None]


def plot_runs(folders: Sequence[Path], path: Path, *, epochs: bool = False) -> Path:
    """Draws trained networks as curves in a PNG: accuracy, ReCU's tau and sign flips, each in a panel of its own.

    folders: those of the networks. path: the PNG, which is returned. epochs: True: accuracy is drawn over epochs, of
    which those of a first stage are part; False: over minutes. A quantity that no network recorded has no panel.
    Folders whose names differ only in ``-s<seed>`` get the same colour. Raises UserError if a folder has no
    metrics.csv and config.yaml.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    runs: list[tuple[str, list[Row], dict[str, Any]]] = []
    for folder in folders:
        files = (folder / "metrics.csv", folder / "config.yaml")
        if not all(file.is_file() for file in files):
            raise UserError(f"no metrics.csv and config.yaml in {folder}: is it the folder of a trained network?")
        runs.append((re.sub(r"-s\d+$", "", folder.name), read_metrics(files[0]), read_yaml(files[1])))
    panels: list[tuple[str, str, Callable[[list[Row], dict[str, Any]], list[Point]]]] = [
        (
            "Top-1 after an epoch, %",
            "epoch" if epochs else "minutes of training (epochs of median length)",
            lambda rows, config: epochs_curve(rows, _first_stage_epochs(config)) if epochs else minutes_curve(rows),
        ),
        ("tau of ReCU", "epoch", lambda rows, config: tau_curve(config, len(rows))),
        ("Signs that flipped in an epoch, %", "epoch", lambda rows, config: _flips(rows, _first_stage_epochs(config))),
    ]
    places = {name: place for place, name in enumerate(dict.fromkeys(name for name, *_ in runs))}
    shown = [panel for panel in panels if any(panel[2](rows, config) for _, rows, config in runs)]
    figure = Figure(figsize=(5.2 * len(shown), 4.4), dpi=150)
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.12)
    canvas = FigureCanvasAgg(figure)
    handles: dict[str, Any] = {}
    for axes, (title, x_label, points_of) in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color="#1e293b")
        axes.set_xlabel(x_label, color="#475569")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e2e8f0", linewidth=0.8)
        if x_label == "epoch":
            axes.xaxis.get_major_locator().set_params(integer=True)
        drawn: list[list[Point]] = []
        for name, rows, config in runs:
            points, place = points_of(rows, config), places[name]
            if points and points not in drawn:  # several runs may have the same tau
                drawn.append(points)
                style = {"color": COLOURS[colour_index(place)][0], "linestyle": "--" if colour_repeats(place) else "-"}
                (handles[name],) = axes.plot(*zip(*points, strict=True), linewidth=1.6, **style)
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    with write_atomically(Path(path)) as temporary:
        canvas.print_png(str(temporary))
    return Path(path)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the script with command line arguments (None: those of the process); returns 0, or 2 on wrong input."""
    from bnn_itrd.config.parse import parse, parser

    p = parser("python -m bnn_itrd.experiments.curves", "Draw curves of several trained networks from metrics.csv.")
    p.add_argument("folders", nargs="+", help="folders of trained networks, with metrics.csv and config.yaml")
    p.add_argument("--out", required=True, help="the PNG file to write")
    p.add_argument("--epochs", action="store_true", help="draw accuracy over epochs instead of minutes")
    try:
        args = parse(p, list(sys.argv[1:] if argv is None else argv))
        print(plot_runs([Path(folder) for folder in args.folders], Path(args.out), epochs=args.epochs))
    except UserError as error:
        print(f"bnn_itrd.experiments.curves: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
