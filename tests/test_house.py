"""The house: its floors, and what keeps a room small enough to be read.

A limit here is a question, not a law of nature: what does not fit wants another room.
"""

from __future__ import annotations

import ast
import importlib
import os
import pkgutil
import re
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import bnn_itrd

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
FOLDERS = {"bnn_itrd": ROOT / "bnn_itrd"} | {f"bnn_itrd.{n}": ROOT / n for n in ("quant", "models", "export")}
# One file for each method, network or command: as many as there are.
MAY_BE_FLAT = ("bnn_itrd.losses", "bnn_itrd.models", "bnn_itrd.quant.methods", "bnn_itrd.cli")
# Functions that a program calls by this name wherever it finds them: of a command, of a script.
PROTOCOL = ("command", "main")


def modules() -> dict[str, Path]:
    """Every module of the package by its name, without what compiles the native library."""
    found = {}
    for name, folder in FOLDERS.items():
        for path in folder.rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            if not {"src", "build"} & {*parts}:
                found[".".join([name, *(p for p in parts if p != "__init__")])] = path
    return found


MODULES = modules()


def test_nothing_imports_upward_and_nothing_in_circles(tmp_path: Path) -> None:
    """Runs the contracts of pyproject.toml's [tool.importlinter] on the tree as it is installed."""
    ignore = shutil.ignore_patterns("__pycache__", "*.so.1", "src", "build")
    shutil.copytree(ROOT / "bnn_itrd", tmp_path / "bnn_itrd", ignore=ignore)
    for name in ("quant", "models", "export"):
        shutil.copytree(ROOT / name, tmp_path / "bnn_itrd" / name, ignore=ignore)
    code = "from importlinter.cli import lint_imports_command as run; run()"
    done = subprocess.run(
        [sys.executable, "-c", code, "--config", str(ROOT / "pyproject.toml"), "--no-cache"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    assert "4 kept, 0 broken" in done.stdout


def test_a_folder_holds_at_most_fifteen_modules() -> None:
    rooms: dict[str, list[str]] = defaultdict(list)
    for name, path in MODULES.items():
        if path.name != "__init__.py":
            rooms[name.rpartition(".")[0]].append(name)
    assert {room: len(names) for room, names in rooms.items() if len(names) > 15 and room not in MAY_BE_FLAT} == {}


def test_a_file_has_at_most_300_lines_and_a_function_60() -> None:
    long = {}
    for name, path in MODULES.items():
        text = path.read_text()
        if (lines := len(text.splitlines())) > 300:
            long[name] = lines
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > 60:
                    long[f"{name}.{node.name}"] = lines
    assert long == {}


def test_a_public_function_or_class_has_a_name_of_its_own() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for name, path in MODULES.items():
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name[0] != "_" and node.name not in PROTOCOL:
                places[node.name].append(name)
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_no_module_is_hidden_by_what_bears_its_name() -> None:
    for found in pkgutil.walk_packages(bnn_itrd.__path__, "bnn_itrd."):
        if found.name.rpartition(".")[2] not in ("__main__", "building"):
            parent, _, leaf = found.name.rpartition(".")
            module = importlib.import_module(found.name)
            assert getattr(importlib.import_module(parent), leaf) is module, found.name


def test_every_module_says_what_it_is() -> None:
    silent = [name for name, path in MODULES.items() if not ast.get_docstring(ast.parse(path.read_text()))]
    assert silent == []


def test_a_test_file_has_at_most_400_lines_and_a_name_of_its_own() -> None:
    paths = sorted(TESTS.rglob("*.py"))
    assert [p.relative_to(TESTS).as_posix() for p in paths if len(p.read_text().splitlines()) > 400] == []
    names = Counter(p.name for p in paths if p.name.startswith("test_"))
    assert [name for name, count in names.items() if count > 1] == []


def test_the_test_files_that_start_first_are_there() -> None:
    first = re.findall(r"\"(test_\w+\.py)\"", (TESTS / "conftest.py").read_text())
    assert len(first) > 10 and {*first} <= {path.name for path in TESTS.rglob("test_*.py")}


def test_a_test_file_says_what_it_proves() -> None:
    silent = [str(p.relative_to(TESTS)) for p in TESTS.rglob("*.py") if not ast.get_docstring(ast.parse(p.read_text()))]
    assert silent == []


def test_every_folder_of_the_package_is_in_the_table_of_tests() -> None:
    rows = re.findall(r"^\| `(.+?)` \| (.+) \|$", (TESTS / "README.md").read_text(), re.MULTILINE)
    packages = {path.parent.relative_to(ROOT).as_posix() for path in MODULES.values() if path.name == "__init__.py"}
    assert {package for package, _ in rows} == packages
    places = {place for _, tests in rows for place in re.findall(r"`([\w/]+(?:/|\.py))`", tests)}
    assert {place for place in places if not (TESTS / place).exists()} == set()


def test_what_compiles_is_marked() -> None:
    """`.ci/full` runs the tests under the marker `compiles` on other versions of torch."""
    unmarked = []
    for path in TESTS.rglob("test_*.py"):
        text = path.read_text()
        if "torch.compile" in text and "pytestmark = pytest.mark.compiles" not in text and path != Path(__file__):
            unmarked += [
                f"{path.name}: {node.name}"
                for node in ast.parse(text).body
                if isinstance(node, ast.FunctionDef)
                and "torch.compile(" in (source := ast.unparse(node))
                and "pytest.mark.compiles" not in source
            ]
    assert unmarked == []
