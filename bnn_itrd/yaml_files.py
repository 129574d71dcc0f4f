"""Functions that read YAML safely: they return plain values, and refuse files that would exhaust memory or stack."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from bnn_itrd.errors import UserError

__all__ = ["parse_yaml", "read_yaml"]

# The largest number of nested levels, more than any recipe has, and fewer than Python's recursion limit allows.
_DEEPEST = 50
# The largest number of values that anchors (&name, repeated as *name) may add. Without a limit, ten lines that repeat
# the line before ten times would give ten thousand million values.
_MOST_REPEATED = 10_000

_TIME = "tag:yaml.org,2002:timestamp"


class _Loader(yaml.SafeLoader):
    """A YAML loader for plain values: text, numbers, true, false, null, lists, mappings; it loads a date as text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _TIME]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _refuse(loader: _Loader, node: yaml.Node) -> Any:
    """Raises yaml's error for an unknown tag."""
    return loader.construct_undefined(node)


for _kind in ("timestamp", "binary", "omap", "pairs", "set"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _refuse)


def parse_yaml(text: str, *, where: str) -> Any:
    """Returns the plain values of a YAML text (dicts, lists, text, numbers); where: the text's name in messages.

    >>> parse_yaml("train: {epochs: 2}", where="the recipe")
    {'train': {'epochs': 2}}

    Raises UserError if the text is not YAML, a mapping has the same key twice, or values are nested too deeply, contain
    themselves, or are repeated too often by anchors.
    """
    loader = None
    try:
        loader = _Loader(text)  # checks every character, and raises YAMLError
        node = loader.get_single_node()
        if node is None:
            return None
        sizes: dict[int, int] = {}
        if _size(node, where, sizes, ()) - len(sizes) > _MOST_REPEATED:
            raise UserError(
                f"{where} has anchors (&name, *name) that repeat more than {_MOST_REPEATED:,} values: use fewer of them"
            )
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        raise UserError(f"{where} is not YAML: {error}") from error
    except ValueError as error:  # a number with too many digits
        raise error if isinstance(error, UserError) else UserError(f"{where} is not YAML: {error}") from error
    except RecursionError as error:
        raise UserError(f"{where} is nested too deeply: at most {_DEEPEST} levels are allowed") from error
    finally:
        if loader is not None:
            loader.dispose()


def read_yaml(path: Path) -> Any:
    """Returns the plain values of a YAML file. Raises UserError if it cannot be read, and as `parse_yaml` does."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not YAML: {error}") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error}") from error
    return parse_yaml(text, where=str(path))


def _size(node: yaml.Node, where: str, sizes: dict[int, int], above: tuple[int, ...]) -> int:
    """Returns the number of values in a YAML node, with its anchors expanded. Raises UserError as `parse_yaml` does.

    where: the file's name in messages; sizes: id of a node -> its number of values, filled here; above: the ids of the
    nodes that contain this one.
    """
    if id(node) in above:
        raise UserError(f"{where}: {_line(node)} contains itself: its anchor (&name) is used (*name) inside it")
    if len(above) > _DEEPEST:
        raise UserError(f"{where}: {_line(node)} is nested too deeply: at most {_DEEPEST} levels are allowed")
    if id(node) in sizes:
        return sizes[id(node)]
    inner: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        _check_keys(node, where)
        inner = [part for pair in node.value for part in pair]
    elif isinstance(node, yaml.SequenceNode):
        inner = node.value
    sizes[id(node)] = 1 + sum(_size(part, where, sizes, (*above, id(node))) for part in inner)
    return sizes[id(node)]


def _check_keys(node: yaml.MappingNode, where: str) -> None:
    """Raises UserError if a mapping has a key twice, because PyYAML would silently keep the last value."""
    first: dict[tuple[str, str], yaml.Node] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
            continue
        if (key.tag, key.value) in first:
            before = _line(first[key.tag, key.value])
            raise UserError(f"{where}: {_line(key)} gives {key.value!r} a second time (first at {before}): keep one")
        first[key.tag, key.value] = key


def _line(node: yaml.Node) -> str:
    """Returns where a node begins, as text: ``line 3``."""
    return f"line {node.start_mark.line + 1}"
