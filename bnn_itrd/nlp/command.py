"""`squad_command`, which runs `bnn-itrd run` and `bnn-itrd train` for a recipe with the task `squad`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bnn_itrd.console import print_table
from bnn_itrd.errors import UserError
from bnn_itrd.nlp.options import squad_config
from bnn_itrd.recipes import default_folder
from bnn_itrd.words import counted

__all__ = ["squad_command"]

_DESCRIPTION = (
    "Fine-tune a BERT on SQuAD 1.1 (or take a fine-tuned one), train students with fewer layers, and compare their "
    "exact match and F1. Nothing is downloaded. If a run was interrupted, the same command continues it."
)


def squad_command(name: str, recipe: str, tree: Mapping[str, Any], argv: Sequence[str]) -> int:
    """Runs ``bnn-itrd run squad`` or ``bnn-itrd train squad --member NAME`` and returns the exit status.

    name: run or train; recipe: the recipe's name or file; tree: its content; argv: the options after the recipe.
    """
    if tree.get("task") != "squad":
        raise UserError(f"{recipe}: task is {tree.get('task')!r}, but must be 'squad', or absent to train on images")
    extra = {"out": "folder of the run; runs/RECIPE by default"}
    if name == "train":
        extra["member"] = "teacher, or the name of a student"
    config, own = squad_config(name, _DESCRIPTION, tree, argv, extra=extra)
    if name == "train" and own["member"] is None:
        raise UserError(f"--member is missing: give one of {', '.join(['teacher', *config.students])}")
    from bnn_itrd.nlp.bert import transformers
    from bnn_itrd.nlp.run import run_squad

    transformers().utils.logging.disable_progress_bar()  # its progress bars would break up the output
    out = Path(own["out"] or default_folder(recipe, tree))
    comparison = run_squad(config, out, recipe=str(tree.get("recipe", recipe)), only=own.get("member"))
    rows = [
        {
            "network": row["name"],
            "layers": str(row["layers"]),
            "parameters": f"{row['parameters']:,}",
            "EM %": f"{row['em_last']:.2f}",
            "F1 %": f"{row['f1_last']:.2f}",
        }
        for row in comparison["models"]
    ]
    print_table(
        rows, f"{comparison['dataset']['name']}: {counted(comparison['dataset']['test'], 'dev question')}, last epoch"
    )
    if own.get("member") is None:
        print(f"{out}/comparison.json")
    return 0
