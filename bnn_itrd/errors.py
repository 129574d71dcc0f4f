"""The error a user can mend: wrong input, a wrong file, a wrong field. The command line prints it without a trace."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["UserError", "require", "unknown"]


class UserError(ValueError):
    """Something the user gave does not fit; the message says what, where, and what to do."""


def require(condition: bool, name: str, rule: str, value: object) -> None:
    """Raises ``NAME must be RULE, got VALUE`` unless the condition holds."""
    if not condition:
        raise UserError(f"{name} must be {rule}, got {value!r}")


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """``unknown KIND 'name', expected one of ...; did you mean 'x'?``"""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return UserError(f"unknown {kind} {name!r}, expected one of {', '.join(known)}{hint}")
