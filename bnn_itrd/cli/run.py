"""``bnn-itrd run``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bnn_itrd.console import print_table

if TYPE_CHECKING:
    pass
from bnn_itrd.cli.recipe import out_folder, recipe_config, run_text_task

__all__ = ["command"]


def command(argv: Sequence[str]) -> int:
    """``run RECIPE --out DIR``: the whole road."""
    if (status := run_text_task("run", argv)) is not None:
        return status
    name, config, own = recipe_config(
        "run",
        "Train a teacher and its binary students, export each to ONNX, hold every file against its network on the "
        "test images, and compare: comparison.json, report.html and a table. It downloads nothing. The same command "
        "continues a run that was interrupted.",
        argv,
        {"out": "folder of the run; runs/RECIPE by default"},
    )
    from bnn_itrd.runs.rows import table_rows
    from bnn_itrd.runs.run import run_recipe

    out = out_folder(own, name)
    comparison = run_recipe(config, out, recipe=name)
    if comparison is not None:
        print_table(
            table_rows(comparison),
            f"{comparison['dataset']['name']}: {comparison['dataset']['test']} test images",
        )
        _print_agreement(comparison)
        print(f"{out}/report.html  {out}/comparison.json")
    return 0


def _print_agreement(comparison: dict[str, Any]) -> None:
    for model in comparison["models"]:
        for artefact in model["artefacts"]:
            odd = artefact.get("disagreements")
            if odd:
                shown = ", ".join(f"image {d['index']} ({d['torch']} -> {d['file']})" for d in odd[:8])
                more = f" and {len(odd) - 8} more" if len(odd) > 8 else ""
                print(f"{model['name']}/{artefact['file']} differs from PyTorch on {shown}{more}")
