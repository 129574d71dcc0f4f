"""What a student learns from: labels, any of the methods, and distillers of the user's own."""

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

# Names of the loss's other parts.
_TAKEN = ("ce", "penalty")


class _Learning:
    """What `DistillConfig` can say of itself."""

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
                    f"{key} would be called {column_of(key)} in metrics.csv, as is {other!r}: give it another name"
                )
            columns[column_of(key)] = key

    @property
    def methods(self) -> dict[str, Any]:
        """The distillers that take part, name -> options: in the order of METHODS, and then the user's own."""
        ours = {name: getattr(self, name) for name in METHODS if getattr(self, name) is not None}
        return ours | {column_of(key): options for key, options in self.own}

    @property
    def needs_teacher(self) -> bool:
        """Whether it learns from anything but labels."""
        return bool(self.methods)

    def check_learns(self) -> None:
        """Raises UserError where no term of the training has a weight."""
        if self.ce == 0 and not any(m.weight > 0 and not m.only_prepares for m in self.methods.values()):
            raise UserError("ce is 0 and no distiller has a weight in the training itself: nothing would be learned")

    @property
    def compares_logits(self) -> bool:
        """Whether the teacher must know the same classes."""
        return any(METHODS[name].compares_logits for name in self.methods if name in METHODS)

    def with_own(self, distillers: Mapping[str, Any]) -> DistillConfig:
        """Returns the configuration with distillers of one's own, name -> an `OwnConfig`, or what one is made of.

        >>> mine = DistillConfig().with_own({"mine": lambda student, teacher, labels: student.logits.mean()})
        >>> list(mine.methods)
        ['mine']
        """
        this: Any = self
        made: DistillConfig = dataclasses.replace(this, own={**dict(self.own), **distillers})
        return made

    def tree(self) -> dict[str, Any]:
        """Returns it as files and checkpoints hold it: an own distiller stands beside the methods, by its address.

        One that was given a name is told by both: ``{"mine": {"distiller": "mypkg.losses:Mine", "weight": 1.0}}``.
        """
        ours = {name: getattr(self, name) for name in METHODS}
        tree = {"ce": self.ce} | {n: None if o is None else dataclasses.asdict(o) for n, o in ours.items()}
        for key, options in self.own:
            tree[key] = options.tree() if key == options.name else {"distiller": options.name, **options.tree()}
        return tree


_DOC = """What a student learns from: labels, and any of METHODS; none of them makes a plain student.

    ce: weight of the cross-entropy with the labels. Every method is a field with its options, None where the student
    does not learn from it: ``DistillConfig(ce=0.1, kd=KDConfig(tau=2.0))``. own: distillers of the user's own, name ->
    `OwnConfig` (or what that is made of), or address -> a mapping of its weight, schedule and options.

    Raises UserError: a weight that is negative or not finite, another method's options, two terms of one name.
    """

if TYPE_CHECKING:

    class DistillConfig(_Learning):
        """A frozen dataclass whose fields are `ce`, the names of METHODS, and `own`."""

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
