"""What a student learns from: labels, and any of the methods."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any, ClassVar

from bnn_itrd.distillers.methods import METHODS
from bnn_itrd.distillers.weighted import Weighted
from bnn_itrd.errors import UserError, require

__all__ = ["DistillConfig"]


class _Learning:
    """What `DistillConfig` can say of itself."""

    ce: float

    def __post_init__(self) -> None:
        require(self.ce >= 0 and math.isfinite(self.ce), "ce", ">= 0 and finite", self.ce)
        for name, kind in METHODS.items():
            options = getattr(self, name)
            require(options is None or isinstance(options, kind), name, f"a {kind.__name__} or None", options)

    @property
    def methods(self) -> dict[str, Any]:
        """The distillers that take part, name -> options, in the order of METHODS."""
        return {name: getattr(self, name) for name in METHODS if getattr(self, name) is not None}

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
        return any(METHODS[name].compares_logits for name in self.methods)


_DOC = """What a student learns from: labels, and any of METHODS; none of them makes a plain student.

    ce: weight of the cross-entropy with the labels. Every method is a field with its options, None where the student
    does not learn from it: ``DistillConfig(ce=0.1, kd=KDConfig(tau=2.0))``.

    Raises UserError: a weight that is negative or not finite, another method's options.
    """

if TYPE_CHECKING:

    class DistillConfig(_Learning):
        """A frozen dataclass whose fields are `ce` and the names of METHODS."""

        __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]

        def __init__(self, ce: float = 1.0, **methods: Weighted | None) -> None: ...

        def __getattr__(self, name: str) -> Any: ...

else:
    DistillConfig = dataclasses.make_dataclass(
        "DistillConfig",
        [("ce", float, 1.0), *((name, kind | None, None) for name, kind in METHODS.items())],
        bases=(_Learning,),
        namespace={"__module__": __name__, "__doc__": _DOC},
        frozen=True,
    )
