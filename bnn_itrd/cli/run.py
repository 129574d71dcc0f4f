"""The command ``bnn-itrd run``, which trains a recipe's networks, exports, validates and compares them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bnn_itrd.cli.options import OUT, REPORT, reported
from bnn_itrd.cli.recipe import recipe_config, run_text_task
from bnn_itrd.console import print_table, print_text
from bnn_itrd.words import counted

__all__ = ["command"]


def command(argv: Sequence[str]) -> int:
    """Runs ``run RECIPE --out DIR``, which trains, exports, validates and compares a recipe's networks; returns 0."""
    if (status := run_text_task("run", argv)) is not None:
        return status
    name, config, own = recipe_config(
        "run",
        "Train a teacher and its binary students, export each to ONNX, compare every file with its network on the "
        "test images, and write comparison.json, report.html and a table. It downloads nothing. The same command "
        "continues a run that was interrupted.",
        argv,
        {**OUT, **REPORT},
    )
    from bnn_itrd.config.addresses import named_addresses
    from bnn_itrd.runs.finished.next_steps import next_steps
    from bnn_itrd.runs.rows import table_rows
    from bnn_itrd.runs.run import run_recipe

    out = own["out"]
    comparison = run_recipe(config, out, recipe=name, trust=own["trust"], report=reported(own))
    if comparison is not None:
        print_table(
            table_rows(comparison),
            f"{comparison['dataset']['name']}: {counted(comparison['dataset']['test'], 'test image')}",
        )
        _print_agreement(comparison)
        folders = {model["name"]: out / model["name"] for model in comparison["models"]}
        options = " --trust" if named_addresses(comparison["config"]) else ""
        print(next_steps(comparison, folders, out, options=options))
    return 0


def _print_agreement(comparison: dict[str, Any]) -> None:
    """Prints which test images are classified differently by an exported file and by its network in PyTorch.

    comparison: the content of comparison.json.
    """
    for model in comparison["models"]:
        for artefact in model["artefacts"]:
            odd = artefact.get("disagreements")
            if odd:
                shown = ", ".join(f"image {d['index']} ({d['torch']} -> {d['file']})" for d in odd[:8])
                more = f" and {len(odd) - 8} more" if len(odd) > 8 else ""
                print_text(f"{model['name']}/{artefact['file']} differs from PyTorch on {shown}{more}")
