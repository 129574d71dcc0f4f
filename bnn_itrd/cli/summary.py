"""``bnn-itrd summary`` prints layers, bits, MACs and bytes of networks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bnn_itrd import recipes as recipe_files
from bnn_itrd.cli.options import add_own_network, check_unused
from bnn_itrd.config.parse import parse, parser, run_config
from bnn_itrd.console import print_table, print_text

if TYPE_CHECKING:
    from bnn_itrd.models.cost import Summary

__all__ = ["command"]


def command(argv: Sequence[str]) -> int:
    """``summary WHAT``: a recipe's teacher and student, or a trained network."""
    p = parser(
        "bnn-itrd summary",
        "Layers, shapes, bits, MACs and bytes: a recipe's teacher and student, or a trained run.",
    )
    p.add_argument("what", help="recipe, run folder or checkpoint")
    p.add_argument("--classes", type=int, default=10, help="a recipe's number of classes")
    add_own_network(p)
    args = parse(p, argv)
    from bnn_itrd.models import summary as describe

    if Path(args.what).exists() and not args.what.endswith((".yaml", ".yml")):
        from bnn_itrd.runs.load import load_member

        _print(describe(load_member(args.what, model=args.model, trust=args.trust)[0]))
        return 0
    check_unused(args, ["model"], args.what, "a recipe")
    from bnn_itrd.config.addresses import LIBRARIES
    from bnn_itrd.config.network import NetworkConfig
    from bnn_itrd.config.run import member_config
    from bnn_itrd.config.scheme import SchemeConfig
    from bnn_itrd.runs.networks import build

    config, _ = run_config("summary", "", recipe_files.read(args.what), [], extra={})
    digits = config.data.name == "digits"
    size = config.data.image_size or (8 if digits else 32)
    shape = (1 if digits else 3, size, size)
    address = config.teacher or ""
    named = address.partition(":")[0] in LIBRARIES
    teacher = NetworkConfig(name=address) if named else config.network.of_teacher()
    shown: list[tuple[str, NetworkConfig, SchemeConfig | None]] = [("teacher", teacher, None)]
    if config.students:
        student = member_config(config, next(iter(config.students)))
        shown.append(("student", student.network, student.scheme))
    for title, network, scheme in shown:
        model = build(network, scheme, num_classes=args.classes, input_shape=shape)
        _print(describe(model), f"{title}: {network.name}, input {'x'.join(map(str, shape))}")
    return 0


def _print(summary: Summary, title: str = "") -> None:
    """Prints a network's layers and totals, as wide as the terminal is."""
    print_table(summary.rows(), title)
    print_text(f"{summary.totals()}\n")
