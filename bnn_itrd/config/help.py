"""Functions that make a command's help: a page with its most used options or, with ``--help all``, every option."""

from __future__ import annotations

import argparse
import shutil
import textwrap
import typing
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from jsonargparse import ArgumentParser

from bnn_itrd.config.data import DataConfig
from bnn_itrd.config.trees import to_dict

__all__ = [
    "RECIPE",
    "HelpPage",
    "all_pages",
    "metavar_of",
    "option_names",
    "options_of",
    "show_data",
    "show_fields",
    "show_page",
    "wants_help",
]

# The placeholder for a recipe, the first argument of several commands.
RECIPE = "RECIPE"

# The fields of a recipe that the short help of `run`, `train` and `sweep` shows, in this order.
MOST_USED = (
    "data",
    "data.root",
    "data.image_size",
    "network.name",
    "teacher",
    "scheme.weight",
    "scheme.activation",
    "teacher_train.epochs",
    "train.epochs",
    "train.batch_size",
    "train.lr",
    "train.max_seconds",
    "train.precision",
    "fabric.accelerator",
    "fabric.devices",
    "fabric.threads",
)
_METAVARS = {bool: "{true,false}", int: "N", float: "X"}


def wants_help(argv: Sequence[str]) -> bool:
    """Returns whether the arguments of a command ask for its help."""
    return any(word in ("-h", "--help") for word in argv)


def all_pages(argv: Sequence[str]) -> bool:
    """Returns whether the arguments of a command ask for its help with every option, ``--help all``.

    >>> all_pages(["digits", "--help", "all"]), all_pages(["--help"])
    (True, False)
    """
    return any(word in ("-h", "--help") and after == "all" for word, after in zip(argv, [*argv[1:], ""], strict=True))


def metavar_of(action: argparse.Action) -> str | tuple[str, ...] | None:
    """Returns the placeholder of an option's value in the help, such as N in ``--top N``.

    It is the option's own metavar, or else one for its type (``N`` for int, ``{a,b}`` for a choice), or else its name.

    >>> p = argparse.ArgumentParser()
    >>> metavar_of(p.add_argument("--top", type=int)), metavar_of(p.add_argument("--data.root", type=str))
    ('N', 'ROOT')
    """
    if action.metavar is not None or not action.option_strings:
        return action.metavar
    kind: Any = getattr(action, "_typehint", None) or action.type
    kinds = [k for k in typing.get_args(kind) if k is not type(None)] if _is_optional(kind) else [kind]
    kind = kinds[0]
    if typing.get_origin(kind) is typing.Literal:
        return "{" + ",".join(map(str, typing.get_args(kind))) + "}"
    return _METAVARS.get(kind, action.option_strings[0].lstrip("-").rpartition(".")[2].upper())


def _is_optional(kind: Any) -> bool:
    return type(None) in typing.get_args(kind)


class HelpPage(SystemExit):
    """An exception that ends a command whose help was asked for; page: the parser whose help is then printed."""

    def __init__(self, page: argparse.ArgumentParser) -> None:
        super().__init__(0)
        self.page = page


class _Whole(argparse.HelpFormatter):
    """A formatter of argparse's help that breaks lines only between words, so that options and paths can be copied."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return textwrap.indent("\n".join(self._split_lines(text, width - len(indent))), indent)

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_long_words=False, break_on_hyphens=False)


def options_of(p: ArgumentParser) -> list[argparse.Action]:
    """Returns the arguments of a command: positional ones first, and --help last."""
    listed: list[argparse.Action] = sorted(p._actions, key=lambda a: (bool(a.option_strings), a.dest == "help"))
    return listed


def option_names(p: ArgumentParser) -> list[str]:
    """Returns one name of each option of a command, for messages that list them.

    The options that jsonargparse adds itself (``--print_shtab``, ``--print_config``) are left out.

    >>> p = ArgumentParser()
    >>> action = p.add_argument("--lce_python", "--lce-python")
    >>> option_names(p)
    ['--help', '--lce_python']
    """
    names = [next((name for name in action.option_strings if name.startswith("--")), "") for action in p._actions]
    return [name for name in names if name and name not in ("--print_shtab", "--print_config")]


def show_page(
    p: ArgumentParser, sections: Mapping[str, Sequence[argparse.Action]], epilog: str = "", *, defaults: bool = True
) -> NoReturn:
    """Ends a command by raising `HelpPage`, which prints its usage, its description, and its options in sections.

    sections: title -> options. epilog: text below the options. defaults: whether options are shown with their defaults.
    """
    page = argparse.ArgumentParser(
        prog=p.prog,
        usage=_folded(p.usage),
        description=p.description,
        epilog=epilog,
        add_help=False,
        formatter_class=_Whole,
    )
    for title, actions in sections.items():
        group = page.add_argument_group(title)
        for action in actions:
            _add(group, action, defaults=defaults)
    raise HelpPage(page)


def _folded(usage: str | None) -> str | None:
    """Returns a command's usage broken into lines of the terminal's width; None if there is no usage."""
    if usage is None:
        return None
    # Later lines are indented so that their text begins below the first line's, which follows "usage: ".
    width = max(20, shutil.get_terminal_size().columns - 2)
    lines = textwrap.wrap(
        f"usage: {usage}", width, subsequent_indent=" " * 7, break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(lines).removeprefix("usage: ").replace("%", "%%")


def _add(group: Any, action: argparse.Action, *, defaults: bool) -> None:
    """Adds an option or a positional argument to a section of a page."""
    if action.help == argparse.SUPPRESS:
        return
    text = (action.help or "").replace("%", "%%")
    if defaults and action.option_strings and action.default not in (None, False, [], argparse.SUPPRESS):
        shown = action.default if isinstance(action.default, (list, tuple)) else [action.default]
        text += f" (default: {' '.join(map(str, shown))})"
    if not action.option_strings:
        group.add_argument(action.dest, help=text, nargs=action.nargs, metavar=action.metavar)
    elif action.nargs == 0:
        group.add_argument(*action.option_strings, help=text, action="store_true", dest="flag")
    else:
        group.add_argument(*action.option_strings, help=text, nargs=action.nargs, metavar=metavar_of(action), dest="x")


def show_fields(
    p: ArgumentParser,
    own: Sequence[str],
    flags: Sequence[str],
    *,
    epilog: str,
    methods: Mapping[str, type],
    whole: bool,
) -> NoReturn:
    """Raises the `HelpPage` of a command that takes a recipe, which ends the command and prints the page.

    The page lists the recipe's fields, which are options: all of them if `whole`, otherwise the most used ones.
    p: the command's parser. own, flags: names of the command's own options with and without a value. epilog: text after
    the options. methods: the distillers to describe, name -> class of their options.
    """
    actions = {action.option_strings[-1].lstrip("-"): action for action in options_of(p)}
    for name, action in actions.items():
        if any(other.startswith(f"{name}.") for other in actions):
            action.help, action.metavar = f"several fields of {name} at once", "{FIELD: VALUE}"
    if methods:  # a command for images; question answering passes no distillers
        actions["data"].help = "data set, short for --data.name: digits, cifar10, folder (your own images), ..."
        actions["data"].metavar = "NAME"
    recipe = argparse.Action([], RECIPE, help="a name of `bnn-itrd recipes`, or a .yaml file")
    chosen = [name for name in (*own, *MOST_USED, *flags) if name in actions]
    most_used = [recipe, *(actions[name] for name in chosen)]
    if not whole:
        more = "Every field of a recipe is an option: --help all lists them, and what a student can learn from."
        show_page(p, {"most used": most_used}, f"{epilog} {more}", defaults=False)
    rest = [action for name, action in actions.items() if name not in chosen]
    learned = f" What a student can learn from, with the defaults: {_described(methods)}" if methods else ""
    show_page(p, {"most used": most_used, "all others": rest}, epilog + learned)


def _described(methods: Mapping[str, type]) -> str:
    """Returns a text that lists every distiller: name, first line of its docstring, fields with their defaults."""
    lines = []
    for name, kind in methods.items():
        fields = ", ".join(f"{field} {value}" for field, value in to_dict(kind()).items())
        lines.append(f"{name}: {str(kind.__doc__).partition(chr(10))[0]} [{fields}]")
    return "; ".join(lines).replace("%", "%%")


def show_data(p: ArgumentParser, *, whole: bool) -> NoReturn:
    """Ends a command that takes ``--data.*`` fields by raising its `HelpPage`; whole: show all of them, else two."""
    fields = ArgumentParser()
    fields.add_class_arguments(DataConfig, "data")
    listed = {action.option_strings[-1]: action for action in fields._actions if action.dest.startswith("data.")}
    short = argparse.ArgumentParser().add_argument("--data", metavar="NAME", help="another data set (--data.name)")
    chosen = [short, *listed.values()] if whole else [short, listed["--data.root"]]
    more = "" if whole else "--help all lists the other fields of data."
    show_page(p, {"options": options_of(p), "images, by default those of the run": chosen}, more)
