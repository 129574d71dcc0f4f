"""The wheel: one top-level name, every package in it, and no quarrel with a user's own models/ folder."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import shutil

    out = tmp_path_factory.mktemp("wheel")
    source = out / "source"
    names = ["pyproject.toml", "README.md", "LICENSE", "bnn_itrd", "models", "quant", "export"]
    source.mkdir()
    for name in names:
        origin = ROOT / name
        if origin.is_dir():
            shutil.copytree(origin, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(origin, source / name)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(out),
        str(source),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return next(out.glob("*.whl"))


def test_the_list_of_packages_is_the_folders_on_disk() -> None:
    listed = set(PROJECT["tool"]["setuptools"]["packages"])
    folders = {"bnn_itrd": ROOT / "bnn_itrd"}
    folders |= {f"bnn_itrd.{name}": ROOT / name for name in ("models", "quant", "export")}
    found = set()
    for name, folder in folders.items():
        for init in folder.rglob("__init__.py"):
            found.add(".".join([name, *init.parent.relative_to(folder).parts]))
    assert listed == found


def test_the_wheel_holds_one_top_level_name(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    top = {name.split("/")[0] for name in names}
    assert {t for t in top if not t.endswith(".dist-info")} == {"bnn_itrd"}
    assert "bnn_itrd/recipes/digits.yaml" in names and "bnn_itrd/py.typed" in names


_IMPORT = """
import importlib, pkgutil, sys
import models  # the user's own
assert models.mine == 1, models
import bnn_itrd
assert bnn_itrd.__file__.startswith(sys.argv[1]), bnn_itrd.__file__
names = [m.name for m in pkgutil.walk_packages(bnn_itrd.__path__, "bnn_itrd.")]
for name in names:
    importlib.import_module(name)
for folder in ("models", "quant", "export", "losses", "recipes"):
    assert f"bnn_itrd.{folder}" in names, names
from bnn_itrd.models import resnet20
from bnn_itrd.quant import BinaryConv2d
assert any(type(m) is BinaryConv2d for m in resnet20(binary="recu").modules())
print(len(names))
"""


def test_installed_beside_a_foreign_models_folder_everything_imports(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(target), str(wheel)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    user = tmp_path / "user"
    (user / "models").mkdir(parents=True)
    (user / "models" / "__init__.py").write_text("mine = 1\n")
    done = subprocess.run(
        [sys.executable, "-c", _IMPORT, str(target)],
        cwd=user,
        env={**__import__("os").environ, "PYTHONPATH": f"{target}"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 30


def test_import_is_light() -> None:
    code = (
        "import sys, bnn_itrd; heavy = [m for m in ('torch', 'onnx', 'onnxruntime', 'matplotlib', 'lightning', 'rich')"
        " if m in sys.modules]; assert not heavy, heavy"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_nothing_imports_upward() -> None:
    """quant imports none of the others, models only quant, export only these two, losses none."""
    allowed = {
        "quant": ("bnn_itrd.quant",),
        "models": ("bnn_itrd.quant", "bnn_itrd.models"),
        "export": ("bnn_itrd.quant", "bnn_itrd.models", "bnn_itrd.export"),
        "bnn_itrd/losses": ("bnn_itrd.losses",),
    }
    import re

    for folder, prefixes in allowed.items():
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text()
            for found in re.findall(r"^\s*(?:from|import) (bnn_itrd[\w.]*)", text, re.M):
                assert found.startswith(prefixes), f"{path.relative_to(ROOT)} imports {found}"
            # one dot stays in its folder; two leave it
            assert not re.search(r"^\s*from \.\.", text, re.M), f"{path.relative_to(ROOT)} imports upward"


def test_versions_agree() -> None:
    import bnn_itrd

    assert PROJECT["project"]["version"] == bnn_itrd.__version__
    assert f"version: {bnn_itrd.__version__}" in (ROOT / "CITATION.cff").read_text()
    assert f"## {bnn_itrd.__version__}" in (ROOT / "CHANGELOG.md").read_text()
