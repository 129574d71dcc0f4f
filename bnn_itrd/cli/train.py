"""The command ``bnn-itrd train``, which trains one network of a recipe."""

from __future__ import annotations

import os
from collections.abc import Sequence

from bnn_itrd.cli.options import OUT, REPORT, reported
from bnn_itrd.cli.recipe import recipe_config, run_text_task
from bnn_itrd.console import print_table
from bnn_itrd.errors import UserError

__all__ = ["command"]


def command(argv: Sequence[str]) -> int:
    """Runs ``train RECIPE --member NAME --out DIR``, which trains one network of a recipe; returns 0."""
    if (status := run_text_task("train", argv)) is not None:
        return status
    name, config, own = recipe_config(
        "train",
        "Train one network of a recipe, its teacher or a student, in the folder DIR/NAME. A student's teacher is that "
        "of --teacher PATH, or the one in DIR/teacher if that was trained before.",
        argv,
        {**OUT, **REPORT, "member": "which network: teacher, or the name of a student"},
    )
    from bnn_itrd.config.addresses import named_addresses
    from bnn_itrd.config.trees import to_dict
    from bnn_itrd.runs.finished.next_steps import after_training
    from bnn_itrd.runs.rows import table_rows
    from bnn_itrd.runs.run import run_recipe

    member = own["member"]
    if member is None:
        raise UserError(f"--member is missing: give one of {', '.join(['teacher', *config.students])}")
    comparison = run_recipe(config, own["out"], recipe=name, only=member, trust=own["trust"], report=reported(own))
    if comparison is not None:
        print_table(table_rows(comparison))
    if os.environ.get("LOCAL_RANK", "0") == "0":
        options = " --trust" if named_addresses(to_dict(config)) else ""
        print(after_training(member, own["out"], rest=bool(config.students), options=options))
    return 0
