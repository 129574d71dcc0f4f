"""What becomes of a case, and the count of many."""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["FINDINGS", "OPENED", "REFUSED", "Finding", "Silent", "Tally", "run_command"]

OPENED, REFUSED = "opened", "refused"
# What must not be: a process that died; another answer than the file's own, without a word; an exception that no user
# can read; more time or memory than a case of these sizes may take.
FINDINGS = ("crash", "silent", "traceback", "limit")


class Silent(Exception):
    """A file that was changed gave another answer, and nobody said so."""


@dataclass(frozen=True)
class Finding:
    """What must not be, of one case: which kind of `FINDINGS`, what was seen, and the file that does it again."""

    kind: str
    words: str
    file: Path | None = None


@dataclass
class Tally:
    """How many cases of a part ended in which way; skipped: what of it was left out, failed: what broke it off."""

    part: str
    ends: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    skipped: str = ""
    failed: str = ""

    def add(self, end: str, words: str = "", file: Path | None = None) -> None:
        """Counts a case that ended so; one of `FINDINGS` is kept with its words and its file."""
        self.ends[end] += 1
        if end in FINDINGS:
            self.findings.append(Finding(end, words, file))

    @property
    def cases(self) -> int:
        return self.ends.total()

    def row(self) -> dict[str, str]:
        """Returns the line of the table."""
        return {
            "part": self.part,
            "cases": f"{self.cases:,}",
            "refused in words": f"{self.ends[REFUSED]:,}",
            "opened and equal": f"{self.ends[OPENED]:,}",
            "crashes": f"{self.ends['crash']:,}",
            "other answers in silence": f"{self.ends['silent']:,}",
            "tracebacks": f"{self.ends['traceback']:,}",
            "over time or memory": f"{self.ends['limit']:,}",
        }

    def as_json(self) -> str:
        """Returns the counts, and the findings with their files, as one line of JSON."""
        found = [{"kind": f.kind, "words": f.words, "file": str(f.file)} for f in self.findings]
        left_out = {"skipped": self.skipped, "failed": self.failed}
        return json.dumps(
            {"part": self.part, "cases": self.cases, "ends": dict(self.ends), "findings": found, **left_out}
        )


def run_command(*arguments: object) -> tuple[int, str]:
    """Runs `bnn-itrd ARGUMENTS` in this process: (exit status, what it wrote). What it raises, a user sees raw.

    Raises AssertionError where it ended with 2 and no line of its own says why.
    """
    from bnn_itrd.cli import main

    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        try:
            status = main([str(a) for a in arguments])
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else 2
    told = errors.getvalue()
    if status == 2 and (not re.search(r"^bnn-itrd: \S", told, re.MULTILINE) or "Traceback" in told):
        raise AssertionError(f"it ended with 2 and said why in no words of its own: {told[-500:]!r}")
    return status, out.getvalue() + errors.getvalue()
