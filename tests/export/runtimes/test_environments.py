"""Environments of other runtimes are made completely or not at all, found again, and never taken from another user."""

from __future__ import annotations

import os
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bnn_itrd.export import ExportError
from bnn_itrd.export.runtimes import environments
from bnn_itrd.export.runtimes.environments import Runtime, find, folder, setup

THIS = Path(sys.executable)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    umask = os.umask(0o022)
    yield tmp_path / "cache" / "bnn_itrd"
    os.umask(umask)


def _wheel(place: Path) -> Path:
    """Writes the wheel of a package `tiny_thing` of one line, so that pip needs no network."""
    file = place / "tiny_thing-1.0-py3-none-any.whl"
    info = "tiny_thing-1.0.dist-info"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("tiny_thing.py", "answer = 42\n")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-thing\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return file


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> Runtime:
    runtime = Runtime("tiny", (str(_wheel(tmp_path)),), "import tiny_thing; assert tiny_thing.answer == 42")
    monkeypatch.setitem(environments.RUNTIMES, "tiny", runtime)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    return runtime


def test_folder(cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert folder("lce").parent == cache and folder("lce").name.startswith("lce-")
    assert folder("lce") != folder("fpga")
    before = folder("fpga")
    other = Runtime("fpga", ("qonnx>=2",), "import qonnx")
    with monkeypatch.context() as patch:
        patch.setitem(environments.RUNTIMES, "fpga", other)
        assert folder("fpga") != before
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for ignored in ("", "relative/cache"):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        assert folder("lce").parent == tmp_path / "home" / ".cache" / "bnn_itrd"


@pytest.mark.parametrize("function", [folder, find, setup])
def test_unknown_name(function: Callable[[str], Any]) -> None:
    with pytest.raises(ValueError, match="runtime must be one of lce, fpga, got 'finn'"):
        function("finn")


def test_setup_find_and_setup_again(tiny: Runtime, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find("tiny") is None
    lines: list[str] = []
    os.umask(0o002)  # what is made is its owner's alone all the same: `find` would refuse it
    python = setup("tiny", report=lines.append)
    assert python == folder("tiny") / "bin" / "python" == find("tiny")
    assert find("tiny", python=python) == python
    assert [entry.name for entry in cache.iterdir()] == [folder("tiny").name]
    assert lines[0].startswith("tiny: making a virtual environment in ") and lines[-1] == "tiny: ready"
    assert any("Installing collected packages: tiny-thing" in line for line in lines)
    # There already: nothing is built.
    monkeypatch.setattr(environments, "_build", None)
    lines.clear()
    assert setup("tiny", report=lines.append) == python
    assert lines == [f"tiny: {folder('tiny')} is there already"]


def _fake_build(runtime: Runtime, place: Path, report: Callable[[str], None]) -> None:
    (place / "bin").mkdir(parents=True)
    (place / "bin" / "python").symlink_to(THIS)


def test_an_environment_whose_interpreter_is_gone_is_made_again(
    tiny: Runtime, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environments, "_build", _fake_build)
    monkeypatch.setattr(environments, "_check", lambda runtime, python: None)
    python = setup("tiny", report=lambda line: None)
    python.unlink()
    python.symlink_to(cache / "an interpreter of last year")
    assert find("tiny") is None
    assert setup("tiny", report=lambda line: None) == python and python.is_file()
    assert [entry.name for entry in cache.iterdir()] == [folder("tiny").name]


def _belongs_to_another(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.getuid() == 0:
        os.chown(path, 12345, -1, follow_symlinks=False)
    else:
        other = os.getuid() + 1
        monkeypatch.setattr(os, "getuid", lambda: other)


@pytest.mark.parametrize("place", ["", "bin", "bin/python", "lib/site.py"])
def test_what_another_user_may_have_put_there_is_not_run(
    tiny: Runtime, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """The environment is complete, and neither `find` nor `setup` uses it."""
    monkeypatch.setattr(environments, "_check", lambda runtime, python: None)
    made = folder("tiny")
    _fake_build(tiny, made, print)
    made.parent.chmod(0o755)
    (made / "lib").mkdir(mode=0o755)
    (made / "lib" / "site.py").write_text("print('run')")
    for path in (made, made / "bin", made / "lib", made / "lib" / "site.py"):
        path.chmod(0o755)
    assert find("tiny") == made / "bin" / "python"
    path = made / place
    if not path.is_symlink():
        for mode in (0o775, 0o757):
            path.chmod(mode)
            for function in (find, setup):
                with pytest.raises(
                    ExportError, match=f"{path} can be changed by other users .its mode is {mode:o}.*chmod"
                ):
                    function("tiny")
        path.chmod(0o755)
    _belongs_to_another(path, monkeypatch)
    for function in (find, setup):
        with pytest.raises(
            ExportError, match="belongs to the user with the number .* instead of you or root, so no code in it is run"
        ):
            function("tiny")


def test_another_process_was_faster(tiny: Runtime, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(runtime: Runtime, place: Path, report: Callable[[str], None]) -> None:
        _fake_build(runtime, place, report)
        _fake_build(runtime, folder("tiny"), report)
        (folder("tiny") / "theirs").touch()

    monkeypatch.setattr(environments, "_build", build)
    monkeypatch.setattr(environments, "_check", lambda runtime, python: None)
    assert setup("tiny", report=lambda line: None) == find("tiny")
    assert (folder("tiny") / "theirs").exists()
    assert [entry.name for entry in cache.iterdir()] == [folder("tiny").name]


def test_a_package_without_a_wheel(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(ExportError, match=r"larq-compute-engine>=0\.16,<1 could not be installed: it has no wheel"):
        setup("lce", report=lambda line: None)
    assert not list(cache.iterdir())


def _pip(arguments: list[str]) -> None:
    environments._pip(environments.RUNTIMES["fpga"], THIS, arguments, lambda line: None)


def test_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    # Nothing listens on port 9 of this machine.
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    with pytest.raises(ExportError, match=r"the package index cannot be reached.*or name the python.*--fpga-python"):
        _pip(["--target", "never-made", "no-such-package-of-this-name"])


def test_an_environment_that_does_not_work_is_not_kept(
    tiny: Runtime, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Runtime("tiny", tiny.requirements, "import another_thing")
    monkeypatch.setitem(environments.RUNTIMES, "tiny", broken)

    def build(runtime: Runtime, place: Path, report: Callable[[str], None]) -> None:
        _fake_build(runtime, place, report)
        environments._check(runtime, place / "bin" / "python")

    monkeypatch.setattr(environments, "_build", build)
    with pytest.raises(ExportError, match=r"cannot be used as runtime tiny: .*No module named 'another_thing'"):
        setup("tiny", report=lambda line: None)
    assert find("tiny") is None and not list(cache.iterdir())


def test_named_interpreters(cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    probes = {"good": "import numpy", "bad": "import no_such_module_anywhere"}
    for name, probe in probes.items():
        monkeypatch.setitem(environments.RUNTIMES, name, Runtime(name, ("something>=1",), probe))
    # The link itself, not what it points to: that is what makes it an environment's.
    assert find("good", python=sys.executable) == THIS.absolute()
    with pytest.raises(ExportError, match=r"runtime bad: .*'no_such_module_anywhere'; install something>=1"):
        find("bad", python=sys.executable)
    with pytest.raises(ExportError, match=r"there is no Python interpreter .*nowhere"):
        find("good", python=tmp_path / "nowhere")
    text = tmp_path / "text"
    text.write_text("hello")
    with pytest.raises(ExportError, match=r"text does not run: .*[Pp]ermission denied"):
        find("good", python=text)


def test_a_package_of_pythonpath_does_not_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "qonnx_of_mine.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setitem(environments.RUNTIMES, "mine", Runtime("mine", ("x",), "import qonnx_of_mine"))
    with pytest.raises(ExportError, match="No module named 'qonnx_of_mine'"):
        find("mine", python=sys.executable)
