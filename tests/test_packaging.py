"""The wheel: one top-level name, every package in it, and no quarrel with a user's own models/ folder."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a checkout has, without anything that was built in it."""
    folder = tmp_path_factory.mktemp("checkout") / "source"
    folder.mkdir()
    for name in ["pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "bnn_itrd", "models", "quant", "export"]:
        origin = ROOT / name
        if origin.is_dir():
            shutil.copytree(origin, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.so.1"))
        else:
            shutil.copy(origin, folder / name)
    return folder


@pytest.fixture(scope="module")
def quick_compiler(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A compiler that does not optimise: these tests look at what is in a wheel, not at how fast it is."""
    path = tmp_path_factory.mktemp("compiler") / "c++"
    path.write_text('#!/bin/sh\nexec c++ "$@" -O0\n')
    path.chmod(0o755)
    return str(path)


def build(source: Path, hook: str, out: Path, **environment: str) -> Path:
    """Calls a hook of setuptools ("build_wheel", "build_sdist", ...) as pip does, in a copy of `source`."""
    copy = out / "copy"
    shutil.copytree(source, copy)
    code = f"import setuptools.build_meta as b; b.{hook}({str(out)!r})"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=copy,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return next(path for path in out.iterdir() if path.is_file())


@pytest.fixture(scope="module")
def wheel(source: Path, quick_compiler: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
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
    environment = {**os.environ, "CXX": quick_compiler}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return next(out.glob("*.whl"))


def native_members(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return [name for name in archive.namelist() if name.startswith("bnn_itrd/export/runtime/native/")]


@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64" or not shutil.which("c++"),
    reason="there is native code for Linux on x86-64 only, and it needs a C++ compiler",
)
def test_the_native_library_is_in_the_wheel_and_ties_it_to_no_python(
    source: Path, wheel: Path, quick_compiler: str, tmp_path: Path
) -> None:
    assert wheel.name.endswith("-py3-none-linux_x86_64.whl")
    assert "bnn_itrd/export/runtime/native/libbnn_itrd.so.1" in native_members(wheel)
    assert not any("/src/" in name for name in native_members(wheel)), "sources belong into the sdist"
    editable = build(source, "build_editable", tmp_path, CXX=quick_compiler)
    assert (tmp_path / "copy" / "export" / "runtime" / "native" / "libbnn_itrd.so.1").is_file(), editable


def test_without_a_compiler_the_wheel_is_one_for_any_platform(source: Path, tmp_path: Path) -> None:
    wheel = build(source, "build_wheel", tmp_path, CXX="/nonexistent/c++")
    assert wheel.name.endswith("-py3-none-any.whl")
    assert "bnn_itrd/export/runtime/native/libbnn_itrd.so.1" not in native_members(wheel)
    assert {f"bnn_itrd/export/runtime/native/{name}" for name in ("__init__.py", "not_built.txt")} <= {
        *native_members(wheel)
    }


def test_the_sdist_holds_the_native_sources(source: Path, tmp_path: Path) -> None:
    with tarfile.open(build(source, "build_sdist", tmp_path)) as archive:
        names = {name.split("/", 1)[-1] for name in archive.getnames()}
    folder = source / "export" / "runtime" / "native" / "src"
    native = {
        path.relative_to(source).as_posix() for end in ("cpp", "h", "py", "map") for path in folder.glob(f"*.{end}")
    }
    assert len(native) > 15 and native <= names


def test_the_list_of_packages_is_the_folders_on_disk() -> None:
    listed = set(PROJECT["tool"]["setuptools"]["packages"])
    folders = {"bnn_itrd": ROOT / "bnn_itrd"}
    folders |= {f"bnn_itrd.{name}": ROOT / name for name in ("models", "quant", "export")}
    found = set()
    for name, folder in folders.items():
        for init in folder.rglob("__init__.py"):
            parts = init.parent.relative_to(folder).parts
            if "build" not in parts:  # of the runtime's own distribution
                found.add(".".join([name, *parts]))
    assert listed == found


def test_the_wheel_holds_one_top_level_name(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    top = {name.split("/")[0] for name in names}
    assert {t for t in top if not t.endswith(".dist-info")} == {"bnn_itrd"}
    for name in ("recipes/digits.yaml", "experiments/papers/tables.yaml", "py.typed", "export/__init__.pyi"):
        assert f"bnn_itrd/{name}" in names


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


def test_versions_agree() -> None:
    import bnn_itrd

    assert PROJECT["project"]["version"] == bnn_itrd.__version__
    runtime = tomllib.loads((ROOT / "export" / "runtime" / "pyproject.toml").read_text())
    assert runtime["project"]["version"] == bnn_itrd.__version__
    assert f"version: {bnn_itrd.__version__}" in (ROOT / "CITATION.cff").read_text()
    assert f"## {bnn_itrd.__version__}" in (ROOT / "CHANGELOG.md").read_text()
