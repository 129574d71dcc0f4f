"""Runs the examples of docs/guides as a user would: in a folder of their own, outside the package."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import re
import runpy
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from bnn_itrd.cli import main

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

    def run(self, folder: Path, command: str, *more: str) -> subprocess.CompletedProcess[str]:
        """Runs ``python FILE`` or ``bnn-itrd ...`` there, with `more` words behind it.

        It runs in this process, as if in one of its own, on one thread: the folder is the current one and the first on
        the path, and what was imported from there is forgotten afterwards. A start takes seconds, most of a command.
        """
        words = [*command.split(), *more]
        out, err = io.StringIO(), io.StringIO()
        with _user(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                if words[0] == "bnn-itrd":
                    status = main(words[1:])
                else:
                    assert words[0] == "python" and len(words) == 2, words
                    runpy.run_path(str(folder / words[1]), run_name="__main__")
                    status = 0
            except SystemExit as stop:
                status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
            except Exception:
                traceback.print_exc()
                status = 1
        return subprocess.CompletedProcess(words, status, out.getvalue(), err.getvalue())

    def start(self, folder: Path, command: str, *more: str) -> subprocess.CompletedProcess[str]:
        """Does the same in a process of its own, on one thread."""
        words = [*command.split(), *more]
        first = [sys.executable, "-m", "bnn_itrd.cli"] if words[0] == "bnn-itrd" else [sys.executable]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment |= {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}
        return subprocess.run(
            [*first, *words[1:]], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
        )


@contextlib.contextmanager
def _user(folder: Path) -> Iterator[None]:
    """The state of a process that was started in the folder; afterwards as before."""
    before, path, argv, threads = set(sys.modules), list(sys.path), list(sys.argv), torch.get_num_threads()
    torch.set_num_threads(1)
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "200")
        sys.path.insert(0, str(folder))
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            sys.path[:], sys.argv[:] = path, argv
            for name in set(sys.modules) - before:
                spec = getattr(sys.modules[name], "__spec__", None)
                places = [] if spec is None else [spec.origin, *(spec.submodule_search_locations or [])]
                if any(Path(place).is_relative_to(folder) for place in places if place):
                    del sys.modules[name]
            importlib.invalidate_caches()
