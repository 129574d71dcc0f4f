"""Calls of a function in a process of another Python: its arrays and texts arrive, and its failure is reported."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from bnn_itrd.export import ExportError
from bnn_itrd.export.runtimes.environments import call

THIS = Path(sys.executable)


def _script(place: Path, body: str) -> Path:
    # A name a shell would take apart.
    file = place / "a script; 'quoted' $HOME.py"
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    file.write_text(f"import os, sys, time\nimport numpy as np\n\ndef main(arrays, arguments):\n{lines}\n")
    return file


def test_call(tmp_path: Path) -> None:
    script = _script(
        tmp_path,
        "assert not {'torch', 'bnn_itrd'} & set(sys.modules)\n"
        "assert os.getpid() != arguments['parent']\n"
        "return {'twice': 2 * arrays['x'], 'bits': arrays['bits'] ^ 1}, {'text': arguments['text'], 'n': len(arrays)}",
    )
    x = np.arange(6, dtype=np.float64).reshape(2, 3)
    bits = np.array([0, 1, 1], np.uint8)
    arguments = {"text": "$HOME; 'ä'\n", "parent": os.getpid()}
    outputs, results = call(THIS, script, arrays={"x": x, "bits": bits}, arguments=arguments)
    np.testing.assert_array_equal(outputs["twice"], 2 * x)
    np.testing.assert_array_equal(outputs["bits"], [1, 0, 0])
    assert outputs["twice"].dtype == np.float64 and outputs["bits"].dtype == np.uint8
    assert results == {"text": "$HOME; 'ä'\n", "n": 2}


def test_call_without_anything(tmp_path: Path) -> None:
    assert call(THIS, _script(tmp_path, "return {}, {'empty': not arrays and not arguments}")) == ({}, {"empty": True})


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise ValueError('17 is too much')", r"(?s)quoted.* ended with status 1 in .*ValueError: 17 is too much"),
        ("sys.exit(3)", r"ended with status 3"),
        ("os.kill(os.getpid(), 9)", "was killed by SIGKILL"),
        ("import ctypes; ctypes.string_at(0)", "was killed by SIGSEGV"),
        ("return {}, {'array': np.zeros(2)}", r"(?s)ended with status 1.*not JSON serializable"),
    ],
)
def test_a_child_that_fails(body: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=message):
        call(THIS, _script(tmp_path, body))


def test_a_child_that_does_not_end(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"was stopped after 0\.5 seconds"):
        call(THIS, _script(tmp_path, "time.sleep(60)"), timeout=0.5)


def test_an_interpreter_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"nowhere does not run: "):
        call(tmp_path / "nowhere", _script(tmp_path, "return {}, {}"))


def test_arguments_that_are_not_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="arguments must be values that JSON can hold: .*not JSON serializable"):
        call(THIS, _script(tmp_path, "return {}, {}"), arguments={"path": tmp_path})
