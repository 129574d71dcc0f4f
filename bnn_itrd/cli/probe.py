"""The command ``bnn-itrd probe``, which trains a linear classifier on a trained network's representation."""

from __future__ import annotations

import json
from collections.abc import Sequence

from bnn_itrd.cli.options import add_best, add_json, add_own_network, say_note
from bnn_itrd.config.parse import data_config, parser
from bnn_itrd.console import print_record, print_text
from bnn_itrd.errors import UserError
from bnn_itrd.words import counted

__all__ = ["command"]


def command(argv: Sequence[str]) -> int:
    """Runs ``probe PATH --data NAME``, a linear probe; returns 0.

    It trains a linear classifier on the features of a trained network and prints the classifier's accuracy.
    """
    p = parser(
        "bnn-itrd probe",
        "Train a linear probe: a linear classifier on the representation (the features before the classifier) that a "
        "trained teacher or student gives for the images of another data set. Print the probe's top-1 on that data "
        "set's test images.",
    )
    p.usage = "bnn-itrd probe PATH --data NAME [--data.root ROOT] [--c C] [--best] [--json]"
    p.add_argument("path", help="run folder or checkpoint")
    p.add_argument("--c", type=float, default=1.0, help="inverse of the L2 penalty on the classifier's weights")
    p.add_argument("--max_iterations", type=int, default=1000, help="largest number of iterations of L-BFGS")
    add_best(p)
    add_own_network(p)
    add_json(p)
    args, given = data_config(p, argv)
    if "name" not in given:
        raise UserError("probe needs a data set: --data NAME")
    from bnn_itrd.experiments.linear_probe import linear_probe, probe_data
    from bnn_itrd.runs.load import load_member

    model, known, path = load_member(args.path, model=args.model, best=args.best, trust=args.trust, say=say_note)
    data = probe_data(known, given)
    result = linear_probe(model, known, data, c=args.c, max_iterations=args.max_iterations)
    values = {"path": str(path), "data": data.name, **result}
    if args.json:
        print(json.dumps(values, indent=1))
    else:
        print_record(
            f"{path}: top-1 {result['top1']:.2f} % on {counted(result['test'], 'test image')} of {data.name} "
            f"({result['classes']} classes), by a linear classifier on {counted(result['dimensions'], 'feature')} that "
            f"was trained on {counted(result['train'], 'training image')} (top-1 of these {result['train_top1']:.2f} %)"
        )
        if not result["converged"]:
            done = counted(args.max_iterations, "iteration")
            print_text(f"L-BFGS did not converge in {done}: give more with --max_iterations")
    return 0
