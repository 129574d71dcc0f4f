"""The help of every command: a page, and all of it; and what a shell completes."""

from __future__ import annotations

import re
import subprocess

import pytest

from bnn_itrd.cli import COMMANDS, main
from bnn_itrd.config.parse import run_config
from bnn_itrd.errors import unknown

FIELDS = ("run", "train", "sweep")
OF_DATA = (*FIELDS, "evaluate", "export", "validate", "probe")


def page(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 0
    return capsys.readouterr().out


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.parametrize("command", [[name] for name in COMMANDS] + [["run", "squad-tiny"]], ids=" ".join)
def test_a_page(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    text = page(capsys, *command, "--help")
    assert text.startswith(f"usage: bnn-itrd {command[0]}") and len(text.splitlines()) <= 80
    assert max(map(len, text.splitlines())) <= 80
    if command[0] in OF_DATA and len(command) == 1:
        usage, _, listed = text.partition("\n\n")
        for option in ("--data NAME", "--data.root ROOT"):
            assert option in usage and f"\n  {option} " in listed
        whole = page(capsys, *command, "--help", "all")
        assert len(whole) > len(text) and "\n  --data.crop_padding N" in whole


def test_the_first_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 80 and max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines if re.match("  [a-z]", line)] == list(COMMANDS)


def test_what_is_used_most_comes_first(capsys: pytest.CaptureFixture[str]) -> None:
    text = page(capsys, "train", "--help")
    assert "--member NAME" in text.partition("\n\n")[0]
    places = [text.index(f"\n  {name}") for name in ("--out", "--member NAME", "--data NAME", "--train.epochs", "-h")]
    assert places == sorted(places) and "--train.momentum" not in text
    whole = page(capsys, "train", "digits", "--help", "all")
    assert "  --train.momentum X" in whole and "(default: 0.9)" in whole and "itrd: " in whole
    assert "--report {true,false}" in text and "--train.precision {auto,32-true,bf16-mixed,16-mixed}" in text


def test_a_data_set_has_a_short_name_everywhere() -> None:
    assert run_config("run", "", {}, ["--data", "cifar100"], extra={})[0].data.name == "cifar100"
    both = ["--data={name: folder, flip: false}", "--data.root", "x"]
    data = run_config("run", "", {}, both, extra={})[0].data
    assert (data.name, data.flip, data.root) == ("folder", False, "x")


def test_a_hint_comes_before_the_list() -> None:
    assert str(unknown("fruit", "aple", ["apple", "pear"])) == (
        "unknown fruit 'aple', did you mean 'apple'? Expected one of apple, pear"
    )
    assert str(unknown("fruit", "xyz", ["apple", "pear"])) == "unknown fruit 'xyz', expected one of apple, pear"


def test_a_shell_completes(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("shtab")
    assert main(["completion", "zsh"]) == 0
    assert "#compdef bnn-itrd" in capsys.readouterr().out
    assert main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    function = re.search(r"complete .*-F (\w+) bnn-itrd", script)[1]  # type: ignore[index]

    def completed(*words: str) -> set[str]:
        listed = " ".join(f"'{word}'" for word in ("bnn-itrd", *words))
        call = f"COMP_WORDS=({listed}); COMP_CWORD={len(words)}; {function}; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        done = subprocess.run(["bash", "-c", f"{script}\n{call}"], capture_output=True, text=True, timeout=60)
        return set(done.stdout.split())

    assert completed("ru") == {"run"} and completed("run", "digi") == {"digits"}
    assert completed("run", "digits", "--train.mo") == {"--train.momentum"}
    assert completed("train", "digits", "--report", "t") == {"true"}
    assert main(["completion", "tcsh"]) == 2
    assert "unknown shell 'tcsh', did you mean 'zsh'? Expected one of bash, zsh" in capsys.readouterr().err
