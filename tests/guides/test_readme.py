"""README.md: its example runs as a user would run it, what it points to is there, and its lines can be read."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from guide_blocks import GUIDES, Guide

ROOT = GUIDES.parents[1]
README = (ROOT / "README.md").read_text()
# Seconds instead of minutes.
SHORTER = {
    "epochs=10,": "epochs=1, warmup_epochs=0,",
    "epochs=30,": "epochs=1, warmup_epochs=0,",
    "resnet20": "resnet8",
    '"digits"': 'DataConfig(name="digits", per_class=13)',
    "import TrainConfig": "import DataConfig, TrainConfig",
}


def test_the_example_ends_in_a_prediction(tmp_path: Path) -> None:
    guide = Guide("../../README")
    text = guide.files["example.py"]
    for whole, short in SHORTER.items():
        assert whole in text
        text = text.replace(whole, short)
    guide.files["example.py"] = text
    guide.write(tmp_path)
    (tmp_path / "docs/img").mkdir(parents=True)
    shutil.copy(ROOT / "docs/img/digit-3.png", tmp_path / "docs/img")
    done = guide.run(tmp_path, "python example.py")
    assert done.returncode == 0, done.stderr
    prediction = done.stdout.splitlines()[-1]
    assert re.fullmatch(r"docs/img/digit-3\.png: \d \d+\.\d %, \d \d+\.\d %, \d \d+\.\d %", prediction), done.stdout
    again = guide.run(tmp_path, "bnn-itrd predict student.onnx docs/img/digit-3.png")
    assert again.stdout.strip() == prediction


def test_the_example_has_ten_lines() -> None:
    lines = Guide("../../README").files["example.py"].splitlines()
    assert len([line for line in lines if line and not line.startswith("#")]) == 10


def test_what_it_points_to_is_there() -> None:
    places = {place.partition("#")[0] for place in re.findall(r"\]\(((?!https?:)[^)]+)\)", README)}
    assert {place for place in places if not (ROOT / place).exists()} == set()
    assert (ROOT / "docs/img/report.png").stat().st_size < 200_000


def test_no_line_is_over_120_characters() -> None:
    assert [line for line in README.splitlines() if len(line) > 120] == []


def test_every_word_it_explains_stands_there_once() -> None:
    table = README.partition("## Words used here")[2].partition("## ")[0]
    words = re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE)[2:]
    explained = [word for row in words for word in row.split(", ")]
    wanted = {"KD", "ITRD", "STE", "ReCU", "RSign", "RPReLU", "MACs", "ONNX", "AVX2", "AVX-512", "NEON"}
    assert set(explained) == wanted and len(explained) == len(wanted)
