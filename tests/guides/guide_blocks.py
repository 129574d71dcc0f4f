"""Runs the examples of docs/guides as a user would: in a folder of their own, outside the package."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

GUIDES = Path(__file__).resolve().parents[2] / "docs" / "guides"
_BLOCK = re.compile(r"^```(python|yaml|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NAME = re.compile(r"^# ([\w/.-]+\.(?:py|yaml))\n")


class Guide:
    """The blocks of a guide: one whose first line is ``# path/name.py`` (or .yaml) is a file, `commands` are those of
    the ``sh`` blocks, one a line. `write` puts the files into a folder."""

    def __init__(self, name: str) -> None:
        self.files: dict[str, str] = {}
        self.commands: list[str] = []
        for language, text in _BLOCK.findall((GUIDES / f"{name}.md").read_text()):
            named = _NAME.match(text)
            if language == "sh":
                self.commands += [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
            elif named is not None:
                self.files[named[1]] = text

    def write(self, folder: Path) -> None:
        for name, text in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def run(self, folder: Path, command: str, *more: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Runs ``python FILE`` or ``bnn-itrd ...`` there, with `more` words behind it, on one thread."""
        words = [*command.split(), *more]
        if words[0] == "bnn-itrd":
            words[:1] = [sys.executable, "-m", "bnn_itrd.cli"]
        elif words[0] == "python":
            words[0] = sys.executable
        else:
            words[0] = shutil.which(words[0]) or words[0]
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        environment |= {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}
        return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout)
