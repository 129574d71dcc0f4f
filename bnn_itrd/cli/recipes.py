"""``bnn-itrd recipes`` lists the recipes that come with the package."""

from __future__ import annotations

from collections.abc import Sequence

from bnn_itrd import recipes as recipe_files
from bnn_itrd.console import print_text

__all__ = ["command"]

# A recipe belongs to the first group that lists its name or a beginning of it.
_GROUPS = (
    ("Start here", ("digits", "folder", "cifar10-resnet20", "cifar10")),
    ("CIFAR-10, papers and their schedules", ("cifar10-",)),
    ("CIFAR-100, ImageNet: the tables of the distillation papers", ("cifar100-", "imagenet-", "small-")),
    ("FPGAs", ("fpga-",)),
    ("Text", ("squad-tiny", "squad")),
)
_MORE = "Others"


def command(argv: Sequence[str]) -> int:
    """Runs ``recipes``, which prints names and purposes in groups, in the width of the terminal."""
    if argv:
        from bnn_itrd.config.parse import parse, parser

        parse(parser("bnn-itrd recipes", "List the recipes that come with the package, and what each is for."), argv)
    for title, names in _grouped(recipe_files.names()).items():
        print(f"{title}:")
        for name in names:
            print(f"  {name}")
            print_text(recipe_files.describe(name), indent="    ", behind="")
        print()
    print_text("bnn-itrd run NAME runs one; bnn-itrd run NAME --help explains its fields")
    return 0


def _grouped(names: Sequence[str]) -> dict[str, list[str]]:
    """Returns the names by group, in the order of the group's list, or else sorted.

    >>> _grouped(["cifar10", "digits", "mine", "cifar10-rad"])
    {'Start here': ['digits', 'cifar10'], 'CIFAR-10, papers and their schedules': ['cifar10-rad'], 'Others': ['mine']}
    """
    left, groups = list(names), dict[str, list[str]]()
    for title, wanted in _GROUPS:
        exact, beginnings = [name for name in wanted if name in left], tuple(w for w in wanted if w.endswith("-"))
        groups[title] = exact + [name for name in left if name not in exact and name.startswith(beginnings)]
        left = [name for name in left if name not in groups[title]]
    groups[_MORE] = left
    return {title: found for title, found in groups.items() if found}
