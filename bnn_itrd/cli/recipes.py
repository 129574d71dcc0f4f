"""The command ``bnn-itrd recipes``, which lists the recipes that come with the package."""

from __future__ import annotations

from collections.abc import Sequence

from bnn_itrd import recipes as recipe_files
from bnn_itrd.console import print_text

__all__ = ["command"]

# Title of a group -> names of recipes, or beginnings of names (those that end in "-"). A recipe belongs to the first
# group that fits.
_GROUPS = (
    ("Start here", ("digits", "folder", "cifar10-resnet20", "cifar10", "cifar10-best")),
    ("CIFAR-10, papers and their schedules", ("cifar10-",)),
    ("CIFAR-100, ImageNet: the tables of the distillation papers", ("cifar100-", "imagenet-", "small-")),
    ("FPGAs", ("fpga-",)),
    ("Text", ("squad-tiny", "squad")),
)
_MORE = "Others"


def command(argv: Sequence[str]) -> int:
    """Runs ``recipes``, which prints the recipes in groups, each with what it is for; returns 0."""
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
    """Returns the names of recipes by their group's title: first those that the group lists, in its order.

    The others keep the order of `names`. Names that belong to no group come last, under 'Others'.

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
