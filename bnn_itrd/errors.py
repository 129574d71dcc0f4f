"""Errors that a user can correct, such as a wrong file or option; commands print them without a traceback."""

from __future__ import annotations

import difflib
import errno
import json
from collections.abc import Iterable

__all__ = ["FieldError", "LostProcess", "Unfinished", "UserError", "remedy", "require", "unknown"]


class UserError(ValueError):
    """An error in the user's input, such as a wrong file or option; the message says what is wrong and what to do."""


class FieldError(UserError):
    """An error in one field of a configuration: its value is not allowed.

    The message is FIELD PROBLEM HINT, got GOT. field: its name with its group (``train.lr``); problem: the rule that is
    broken (``must be > 0``); got: the value, if it should be shown; hint: further text; fits: an allowed value, from
    which `at` makes a hint, or None.
    """

    def __init__(self, field: str, problem: str, *, got: object = ..., fits: object = None, hint: str = "") -> None:
        super().__init__(f"{field} {problem}{hint}" + ("" if got is ... else f", got {got!r}"))
        self.field, self.problem, self.got, self.fits = field, problem, got, fits

    def at(self, where: str, *, fits: object = None) -> FieldError:
        """Returns this error with the field's group replaced by `where`, and a hint: an option with an allowed value.

        fits: the allowed value; None: that of this error.

        >>> str(FieldError("train.lr", "must be > 0", got=-1.0).at("teacher_train", fits=0.1))
        'teacher_train.lr must be > 0 (--teacher_train.lr 0.1), got -1.0'
        """
        field = ".".join([where, self.field.rpartition(".")[2]] if where else [self.field])
        fits = self.fits if fits is None else fits
        value = fits if isinstance(fits, str) else json.dumps(fits, separators=(",", ":"))
        hint = "" if fits is None else f" (--{field} {value})"
        return FieldError(field, self.problem, got=self.got, fits=fits, hint=hint)

    def inside(self, where: str) -> FieldError:
        """Returns the same error with `where` put in front of the field's name.

        >>> str(FieldError("kd.tau", "must be > 0", got=-1.0).inside("students.mine"))
        'students.mine.kd.tau must be > 0, got -1.0'
        """
        return FieldError(f"{where}.{self.field}", self.problem, got=self.got, fits=self.fits)


class Unfinished(Exception):
    """An exception that ends a training early because of its time limit, ``train.max_seconds``; its epochs are saved.

    title: the network's name; epoch: the number of finished epochs; epochs: the number of planned epochs.

    >>> print(Unfinished("recu-itrd", 12, 200))
    recu-itrd: stopped after epoch 12 of 200, since the next would pass train.max_seconds; the same command continues
    """

    def __init__(self, title: str, epoch: int, epochs: int) -> None:
        super().__init__(
            f"{title}: stopped after epoch {epoch} of {epochs}, since the next would pass train.max_seconds; the same "
            "command continues"
        )
        self.title, self.epoch, self.epochs = title, epoch, epochs


class LostProcess(RuntimeError):
    """An error in a training with several processes: another process has ended, so this one cannot continue.

    who: the other process in words, for the message. status: the exit status of the command.

    >>> print(LostProcess("rank 1 of 2 (pid 4711)"))
    rank 1 of 2 (pid 4711) has ended before the training did, and this one with it; the same command continues from \
the last finished epoch
    """

    status = 3

    def __init__(self, who: str) -> None:
        super().__init__(
            f"{who} has ended before the training did, and this one with it; the same command continues from the last "
            "finished epoch"
        )


_FULL = "Free some space or choose another --out"
_NOT_ALLOWED = "Choose another --out, one that you may write to"
_TOO_MANY_FILES = "Raise the limit on open files (ulimit -n)"
_REMEDIES = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EACCES: _NOT_ALLOWED,
    errno.EPERM: _NOT_ALLOWED,
    errno.EROFS: _NOT_ALLOWED,
    errno.ENAMETOOLONG: "Give a shorter name",
    errno.EMFILE: _TOO_MANY_FILES,
    errno.ENFILE: _TOO_MANY_FILES,
}


def remedy(error: OSError, otherwise: str = "", *, writing: bool = True) -> str:
    """Returns advice for an error of the operating system, chosen by its errno; `otherwise` if there is none for it.

    writing: whether the error surely occurred while a file was written.

    >>> remedy(OSError(errno.ENOSPC, "No space left on device"))
    'Free some space or choose another --out'
    >>> remedy(PermissionError(errno.EACCES, "Permission denied"), writing=False)
    'Look at who may read and write it (ls -ld)'
    """
    if not writing and error.errno in (errno.EACCES, errno.EPERM):
        return "Look at who may read and write it (ls -ld)"
    return _REMEDIES.get(error.errno or 0, otherwise)


def require(condition: bool, name: str, rule: str, value: object) -> None:
    """Raises FieldError with the message ``NAME must be RULE, got VALUE`` unless the condition holds.

    >>> require(0.5 > 0, "train.lr", "> 0", 0.5)
    """
    if not condition:
        raise FieldError(name, f"must be {rule}", got=value)


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """Returns an error for a name that is none of the known ones; its message lists those and suggests the closest.

    kind: what the name stands for, in words.

    >>> print(unknown("optimizer", "sdg", ["sgd", "adamw"]))
    unknown optimizer 'sdg', did you mean 'sgd'? Expected one of sgd, adamw
    """
    known = list(known)
    plain = {option.lstrip("-"): option for option in known}  # dashes do not make two options similar
    near = difflib.get_close_matches(name.lstrip("-"), plain, n=1, cutoff=0.5)
    hint = f"did you mean {plain[near[0]]!r}? Expected" if near else "expected"
    return UserError(f"unknown {kind} {name!r}, {hint} one of {', '.join(known)}")
