"""The short form of benchmarks/campaign.py: few damaged files of each kind, few kills, and that it sees what it is for.

docs/maintain/promises.md says what is promised, and how each promise is tested.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from faults import batches
from faults.batches import open_damaged
from faults.cases import open_here
from faults.kills import COMMANDS, KillServer, differences_of_runs, kill_at_writes
from faults.kinds import KINDS
from faults.mutations import mutate_archive, mutate_bytes, mutate_tree
from faults.outcomes import OPENED, REFUSED, Tally
from helpers.scripts import load_script

ROOT = Path(__file__).resolve().parents[1]


def expect_no_findings(tally: Tally, cases: int) -> None:
    assert tally.findings == [], "\n\n".join(f"{f.kind} {f.file}\n{f.words}" for f in tally.findings)
    assert tally.cases == cases == tally.ends[REFUSED] + tally.ends[OPENED]


# ---- damaged files


@pytest.mark.parametrize(
    ("kind", "cases", "refused"),
    [
        ("onnx", 60, 40),
        ("tflite", 24, 12),
        ("checkpoints", 24, 10),
        ("images", 60, 10),
        ("yaml", 24, 6),
        ("json", 30, 6),
    ],
)
def test_damaged_files_are_refused_in_words_or_give_the_same(
    kind: str, cases: int, refused: int, tmp_path: Path
) -> None:
    if kind == "tflite" and sys.version_info >= (3, 13):
        pytest.skip("larq-compute-engine has no wheels here")
    tally = open_here(kind, cases, tmp_path)
    expect_no_findings(tally, cases)
    assert tally.ends[REFUSED] >= refused


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", KINDS)
def test_many_damaged_files(kind: str, tmp_path: Path) -> None:
    cases = 40 if kind == "states" else 400
    expect_no_findings(open_damaged(kind, cases, tmp_path, seed=1), cases)


def test_a_case_is_told_by_its_seed_and_number() -> None:
    data, tree = bytes(range(256)) * 4, {"a": [1, 2.5, {"b": None}], "c": "text"}
    for number in range(20):
        for mutate, given in ((mutate_bytes, data), (mutate_tree, tree)):
            one, two = (mutate(given, np.random.default_rng([0, number])) for _ in range(2))
            assert repr(one) == repr(two)
    assert data == bytes(range(256)) * 4 and tree == {"a": [1, 2.5, {"b": None}], "c": "text"}


def test_an_archive_is_damaged_under_checksums_that_fit(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.arange(100), y=np.zeros(3))
    data, read = (tmp_path / "a.npz").read_bytes(), 0
    for number in range(20):
        (tmp_path / "b.npz").write_bytes(mutate_archive(data, np.random.default_rng(number)))
        with np.load(tmp_path / "b.npz") as loaded:
            read += len(loaded.files)
    assert read >= 20


WORKER = """
import json, os, sys, time
def tell(**values): print(json.dumps(values), flush=True)
tell(ready=True)
for number in range(int(sys.argv[4]), int(sys.argv[5])):
    tell(begin=number, file=f"file{number}")
    if number == 1: os.abort()
    if number == 2: time.sleep(60)
    tell(end="traceback" if number == 3 else "refused", words="Traceback" if number == 3 else "")
"""


def test_a_process_that_dies_and_one_that_stands_still_are_findings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "worker.py").write_text(WORKER)
    monkeypatch.setattr(batches, "_WORKER", tmp_path / "worker.py")
    monkeypatch.setattr(batches, "_STANDS_STILL", 1.0)
    tally = open_damaged("onnx", 6, tmp_path)
    assert dict(tally.ends) == {"refused": 3, "crash": 1, "limit": 1, "traceback": 1}
    assert [(f.kind, f.file) for f in tally.findings] == [
        ("crash", Path("file1")),
        ("limit", Path("file2")),
        ("traceback", Path("file3")),
    ]
    assert open_damaged("onnx", 6, tmp_path, deadline=time.monotonic()).cases == 0


# ---- kills


def test_a_run_killed_at_its_writes_gives_what_it_gives_without_a_kill(tmp_path: Path) -> None:
    expect_no_findings(kill_at_writes("run", tmp_path, cases=3, only=("last.pt", "best.pt")), 3)
    whole, other = tmp_path / "run-whole", tmp_path / "other"
    shutil.copytree(whole, other)
    assert differences_of_runs(whole, other) == []
    last = other / "recu-itrd" / "last.pt"
    last.write_bytes(last.read_bytes()[:-200])
    (other / "recu" / "metrics.csv").write_text("epoch\n1\n")
    (other / ".status.json.x.tmp").write_text("")
    (other / "config.yaml").unlink()
    assert [line.partition(":")[0] for line in differences_of_runs(whole, other)] == [
        ".status.json.x.tmp is left over",
        "config.yaml is missing",
        "recu-itrd/last.pt cannot be read",
        "recu/metrics.csv differs",
    ]


@pytest.mark.exhaustive
def test_many_kills(tmp_path: Path) -> None:
    with KillServer() as server:
        for command in COMMANDS:
            (tmp_path / command).mkdir()
            expect_no_findings(kill_at_writes(command, tmp_path / command, cases=12, seed=1, server=server), 12)


# ---- the command


@pytest.fixture
def campaign() -> ModuleType:
    module: ModuleType = load_script("benchmarks/campaign.py")
    return module


def test_a_part_that_breaks_off_does_not_take_the_others_with_it(
    campaign: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def part(name: str, folder: Path, seed: int, deadline: float) -> Tally:
        if name == "onnx":
            raise RuntimeError("no compiler")
        if name == "json":
            raise KeyboardInterrupt
        return open_damaged("images", 0, folder)

    monkeypatch.setattr(campaign, "_run_of", lambda name: part)
    monkeypatch.setattr(sys, "argv", ["campaign.py", "--only", "onnx", "yaml", "json", "tflite", f"--keep={tmp_path}"])
    assert campaign.main() == 1
    out = capsys.readouterr().out
    assert "FAILED: an error of the campaign itself in the part onnx: RuntimeError: no compiler" in out
    assert "yaml: " in out and "json: " in out and "tflite" not in out


@pytest.mark.parametrize("finding", ["", "silent"])
def test_the_campaign_prints_its_table_and_ends_with_1_on_a_finding(
    finding: str,
    campaign: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def part(name: str, folder: Path, seed: int, deadline: float) -> Tally:
        tally = Tally(name, skipped="no yaml here" if name == "yaml" else "")
        tally.ends[REFUSED] += 1234 + seed
        if finding:
            tally.add(finding, "other logits", folder / "a.onnx")
        return tally

    monkeypatch.setattr(campaign, "_run_of", lambda name: part)
    report = tmp_path / "a.json"
    words = ["campaign.py", "--only", "onnx", "yaml", "--seed=1", f"--json={report}", f"--keep={tmp_path}"]
    monkeypatch.setattr(sys, "argv", words)
    assert campaign.main() == (1 if finding else 0)
    out = capsys.readouterr().out
    for text in ("refused in words", "1,235", "kernels up to", "SKIPPED in yaml: no yaml here"):
        assert text in out
    assert ("onnx, silent: " in out) == ("other logits" in out) == bool(finding)
    told = json.loads(report.read_text())
    assert [part["part"] for part in told["parts"]] == ["onnx", "yaml"] and told["seed"] == 1
    assert told["parts"][0]["ends"] == {"refused": 1235} | ({"silent": 1} if finding else {})
