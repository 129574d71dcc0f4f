"""The settings of what a network learns from: labels, this package's distillers, and distillers of the user's own."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from bnn_itrd.config.own import OwnConfig, column_of, own_config
from bnn_itrd.distillers.methods import METHODS
from bnn_itrd.distillers.weighted import Weighted
from bnn_itrd.errors import UserError, require

__all__ = ["DistillConfig"]

# Names of the loss's other terms: the cross-entropy and the binarisers' penalty. A user's distiller cannot have them.
_TAKEN = ("ce", "penalty")


class _Learning:
    """The base class of `DistillConfig`, with its checks and properties.

    Its fields, one for each distiller of the package (a key of METHODS), are added where `DistillConfig` is made.
    """

    ce: float
    own: tuple[tuple[str, OwnConfig], ...]

    def __post_init__(self) -> None:
        require(self.ce >= 0 and math.isfinite(self.ce), "ce", ">= 0 and finite", self.ce)
        for name, kind in METHODS.items():
            options = getattr(self, name)
            require(options is None or isinstance(options, kind), name, f"a {kind.__name__} or None", options)
        object.__setattr__(self, "own", tuple((key, own_config(key, value)) for key, value in dict(self.own).items()))
        columns: dict[str, str] = {}
        for key, _ in self.own:
            other = column_of(key) if column_of(key) in (*METHODS, *_TAKEN) else columns.get(column_of(key))
            if other is not None:
                raise UserError(
                    f"the loss of {key} would be the column loss_{column_of(key)} of metrics.csv, which {other!r} has "
                    "already: give this distiller another name"
                )
            columns[column_of(key)] = key

    @property
    def methods(self) -> dict[str, Any]:
        """The distillers that are used, as a dict name -> options: first this package's, then the user's own."""
        ours = {name: getattr(self, name) for name in METHODS if getattr(self, name) is not None}
        return ours | {column_of(key): options for key, options in self.own}

    @property
    def needs_teacher(self) -> bool:
        """Whether the student learns from a teacher, which is so if any distiller is used."""
        return bool(self.methods)

    def check_learns(self) -> None:
        """Raises UserError if every term of the training's loss has the weight 0, so that nothing would be learned.

        Distillers that are used only in the preparation, before the training, do not count.
        """
        if self.ce == 0 and not any(m.weight > 0 and not m.only_prepares for m in self.methods.values()):
            raise UserError(
                "ce is 0 and no distiller has a weight in the training itself, so nothing would be learned: give ce or "
                "a distiller a weight > 0"
            )

    @property
    def compares_logits(self) -> bool:
        """Whether a distiller compares logits; if so, the teacher must have been trained on the same classes."""
        return any(METHODS[name].compares_logits for name in self.methods if name in METHODS)

    def with_own(self, distillers: Mapping[str, Any]) -> DistillConfig:
        """Returns this configuration with distillers of the user's own added.

        distillers: name -> the distiller (a function, class or object; see `OwnConfig`), or an `OwnConfig` with its
        weight and options.

        >>> mine = DistillConfig().with_own({"mine": lambda student, teacher, labels: student.logits.mean()})
        >>> list(mine.methods)
        ['mine']
        """
        this: Any = self
        made: DistillConfig = dataclasses.replace(this, own={**dict(self.own), **distillers})
        return made

    def tree(self) -> dict[str, Any]:
        """Returns the configuration as nested dicts of plain values, as it is written to files and checkpoints.

        A user's own distiller has an entry like the package's. Its key is the distiller's address, or a name; then the
        entry has the address: ``{"mine": {"distiller": "mypkg.losses:Mine", "weight": 1.0}}``.
        """
        ours = {name: getattr(self, name) for name in METHODS}
        tree = {"ce": self.ce} | {n: None if o is None else dataclasses.asdict(o) for n, o in ours.items()}
        for key, options in self.own:
            tree[key] = options.tree() if key == options.name else {"distiller": options.name, **options.tree()}
        return tree


_DOC = """The settings of what a network learns from: labels, and any number of distillers.

    ce: weight of the cross-entropy with the labels. Every distiller of this package is a field that holds its options,
    or None if it is not used. own: the user's own distillers: name -> `OwnConfig` (or the distiller itself), or
    address -> dict of weight, schedule and options.

    Raises UserError if a weight is negative or not finite, a field holds another distiller's options, or two terms of
    the loss have the same name.

    >>> from bnn_itrd.distillers.logits.kd import KDConfig
    >>> list(DistillConfig(ce=0.1, kd=KDConfig(tau=2.0)).methods)
    ['kd']
    """

if TYPE_CHECKING:

    class DistillConfig(_Learning):
        """What type checkers see of the class: a frozen dataclass with `ce`, a field per distiller, and `own`."""

        __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]

        def __init__(self, ce: float = 1.0, *, own: Mapping[str, Any] = ..., **methods: Weighted | None) -> None: ...

        def __getattr__(self, name: str) -> Any: ...

else:
    DistillConfig = dataclasses.make_dataclass(
        "DistillConfig",
        [("ce", float, 1.0), *((name, kind | None, None) for name, kind in METHODS.items()), ("own", Any, ())],
        bases=(_Learning,),
        namespace={"__module__": __name__, "__doc__": _DOC},
        frozen=True,
    )
