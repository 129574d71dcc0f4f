"""Functions that split the arguments of a command into options with their values, and set fields by dotted names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bnn_itrd.errors import UserError

__all__ = ["Given", "given_options", "set_field"]


@dataclass(frozen=True)
class Given:
    """An option of the command line: its key, and its values as texts.

    It is written ``--KEY=VALUE``, ``--KEY VALUE VALUE`` or, for a flag, ``--KEY``.
    """

    key: str
    values: tuple[str, ...]

    @property
    def words(self) -> list[str]:
        """The option as a list of command-line arguments."""
        return [f"--{self.key}={self.values[0]}"] if len(self.values) == 1 else [f"--{self.key}", *self.values]

    def value(self) -> str:
        """Returns the option's value. Raises UserError if it has none, or more than one."""
        if not self.values:
            raise UserError(f"--{self.key} needs a value")
        if len(self.values) > 1:
            raise UserError(f"--{self.key} takes one value, got {' '.join(self.values)}")
        return self.values[0]

    def check_flag(self) -> None:
        """Raises UserError if the option has a value; it is called for flags, which take none."""
        if self.values:
            raise UserError(f"--{self.key} takes no value, got {self.values[0]!r}")


def given_options(argv: Sequence[str]) -> list[Given]:
    """Returns the options among the arguments of a command, with their values; -h and --help are left out.

    >>> given_options(["--train.lr=0.1", "--grid", "train.seed=0,1", "data.flip=true", "--json"])[1:]
    [Given(key='grid', values=('train.seed=0,1', 'data.flip=true')), Given(key='json', values=())]

    Raises UserError if an argument belongs to no option.
    """
    options: list[tuple[str, list[str], bool]] = []
    for word in argv:
        if word in ("-h", "--help"):
            continue
        if word.startswith("--"):
            key, equals, value = word[2:].partition("=")
            options.append((key, [value] if equals else [], bool(equals)))
        elif options and not options[-1][2]:
            options[-1][1].append(word)
        else:
            raise UserError(f"unexpected {word!r}: fields are given as --FIELD VALUE")
    return [Given(key, tuple(values)) for key, values, _ in options]


def set_field(tree: dict[str, Any], key: str, value: Any) -> None:
    """Sets a field of nested dicts by its dotted name, such as ``train.epochs``.

    Dicts that are missing are made; a value that stands in the place of a dict is replaced. The address of a user's own
    code (``package.module:Name``) is a single part of the name.

    >>> tree = {}
    >>> set_field(tree, "students.mine.pkg.losses:Mine.weight", 2)
    >>> tree
    {'students': {'mine': {'pkg.losses:Mine': {'weight': 2}}}}
    """
    *parents, last = _parts(key)
    for parent in parents:
        below = tree.get(parent)
        if not isinstance(below, dict):
            below = tree[parent] = {}
        tree = below
    tree[last] = value


def _parts(key: str) -> list[str]:
    """Returns a field's dotted name as a list of keys; an address after ``students.NAME`` is a single key."""
    before, colon, behind = key.partition(":")
    if not colon:
        return key.split(".")
    first, *names = behind.split(".")
    group, student, module = [*before.split(".", 2), "", ""][:3]
    return [group, student, f"{module}:{first}", *names]
