"""Errors that a user can correct: wrong input, a wrong file, a wrong field. Commands print them without a traceback."""

from __future__ import annotations

import difflib
import errno
import json
from collections.abc import Iterable

__all__ = ["FieldError", "LostProcess", "Unfinished", "UserError", "remedy", "require", "unknown"]


class UserError(ValueError):
    """Something that the user gave is wrong; the message says what, where it stands, and what to do."""


class FieldError(UserError):
    """A field of a configuration holds a value that does not fit.

    field: its name in its group (``train.lr``); problem: the rest of the message (``must be > 0``); got: the value,
    with which the message ends if it is given; fits: a value that is allowed, if one is known; hint: text after it.
    """

    def __init__(self, field: str, problem: str, *, got: object = ..., fits: object = None, hint: str = "") -> None:
        super().__init__(f"{field} {problem}{hint}" + ("" if got is ... else f", got {got!r}"))
        self.field, self.problem, self.got, self.fits = field, problem, got, fits

    def at(self, where: str, *, fits: object = None) -> FieldError:
        """Returns the same error for a field of the group `where`, with the option that sets it to an allowed value.

        >>> str(FieldError("train.lr", "must be > 0", got=-1.0).at("teacher_train", fits=0.1))
        'teacher_train.lr must be > 0 (--teacher_train.lr 0.1), got -1.0'
        """
        field = ".".join([where, self.field.rpartition(".")[2]] if where else [self.field])
        fits = self.fits if fits is None else fits
        value = fits if isinstance(fits, str) else json.dumps(fits, separators=(",", ":"))
        hint = "" if fits is None else f" (--{field} {value})"
        return FieldError(field, self.problem, got=self.got, fits=fits, hint=hint)

    def inside(self, where: str) -> FieldError:
        """Returns the same error with `where` in front of the field's whole name.

        >>> str(FieldError("kd.tau", "must be > 0", got=-1.0).inside("students.mine"))
        'students.mine.kd.tau must be > 0, got -1.0'
        """
        return FieldError(f"{where}.{self.field}", self.problem, got=self.got, fits=self.fits)


class Unfinished(Exception):
    """A training stopped before its last epoch, because ``train.max_seconds`` were over; its epochs are saved.

    title: the network's name; epoch: the number of epochs that are done; epochs: the number of all epochs.

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
    """Another process of a training with several processes has ended too early, so this one cannot go on.

    who: the process in words, for the message. status: the exit status of the command.

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
    """Returns what to do about an error of the operating system, by its number; `otherwise` for other numbers.

    writing: the error occurred while the run wrote a file; False where that is not known.

    >>> remedy(OSError(errno.ENOSPC, "No space left on device"))
    'Free some space or choose another --out'
    >>> remedy(PermissionError(errno.EACCES, "Permission denied"), writing=False)
    'Look at who may read and write it (ls -ld)'
    """
    if not writing and error.errno in (errno.EACCES, errno.EPERM):
        return "Look at who may read and write it (ls -ld)"
    return _REMEDIES.get(error.errno or 0, otherwise)


def require(condition: bool, name: str, rule: str, value: object) -> None:
    """Raises ``NAME must be RULE, got VALUE`` unless the condition holds.

    >>> require(0.5 > 0, "train.lr", "> 0", 0.5)
    """
    if not condition:
        raise FieldError(name, f"must be {rule}", got=value)


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """Returns the error for a name that is not among those known, which are listed, with the most similar one first.

    >>> print(unknown("optimizer", "sdg", ["sgd", "adamw"]))
    unknown optimizer 'sdg', did you mean 'sgd'? Expected one of sgd, adamw
    """
    known = list(known)
    plain = {option.lstrip("-"): option for option in known}  # dashes alone are no likeness
    near = difflib.get_close_matches(name.lstrip("-"), plain, n=1, cutoff=0.5)
    hint = f"did you mean {plain[near[0]]!r}? Expected" if near else "expected"
    return UserError(f"unknown {kind} {name!r}, {hint} one of {', '.join(known)}")
