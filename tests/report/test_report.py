"""The HTML report: what it shows, what it escapes, what it says without data."""

from __future__ import annotations

import base64
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.report_pages import comparison, model, png, written
from PIL import Image

from bnn_itrd.plots import (
    CURVES_PIXELS,
    last_and_best,
    write_atomically,
)
from bnn_itrd.report import headline, plot_curves, wilson_interval, write_report

SECTIONS = (
    "comparison",
    "curves",
    "tradeoffs",
    "classes",
    "confusion",
    "differences",
    "validation",
    "setup",
)


def test_page_is_well_formed_and_has_every_section(tmp_path: Path) -> None:
    page = written(comparison(), tmp_path)
    ids = [value for tag, name, value in page.attributes if tag == "section" and name == "id"]
    assert tuple(ids) == SECTIONS
    links = [value for tag, name, value in page.attributes if tag == "a" and name == "href"]
    assert links == [f"#{name}" for name in SECTIONS]
    # Accuracy, both losses, the two scatter plots, loss terms of 3 models, classes of 2, confusions of 3.
    assert page.tags.count("svg") == 3 + 2 + 3 + 2 + 3
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_page_needs_nothing_else(tmp_path: Path) -> None:
    data = comparison(100)
    page = written(data, tmp_path)
    for tag, name, value in page.attributes:
        if name in ("src", "href", "srcset", "data", "action"):
            assert value.startswith(("data:image/png;base64,", "#")), (tag, name, value[:60])
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "http" not in text and "@import" not in text and "url(" not in text
    assert {"script", "link", "iframe"}.isdisjoint(page.tags)


def test_same_comparison_gives_the_same_page(tmp_path: Path) -> None:
    first = write_report(comparison(), tmp_path / "a.html").read_bytes()
    stored = json.loads(json.dumps(comparison()))
    assert write_report(stored, tmp_path / "deep" / "b.html").read_bytes() == first


def test_headline_and_tiles(tmp_path: Path) -> None:
    data = comparison()
    assert headline(data) == "Student recu-itrd: 97.2 % top-1, 1.7 points below its teacher, 28x smaller"
    summary = written(data, tmp_path).text["summary"]
    for words in (headline(data), "360 test images", "1,437 for training", "97.20 %", "94.9\u201398.5"):
        assert words in summary
    for words in ("teacher: 98.90 %", "38.5 kB", "teacher: 1.08 MB, 28x", "14 times", "2 of 3"):
        assert words in summary
    assert "\u22121.70 points" in summary
    assert "98.13 %" in summary


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"top1_last": 99.4}, "99.4 % top-1, 0.5 points above its teacher, 28x smaller"),
        ({"top1_last": 98.9}, "98.9 % top-1, level with its teacher, 28x smaller"),
        ({"top1_last": 99.99, "bytes": None}, "99.9 % top-1, 1.1 points above its teacher"),
        ({"top1_last": 100.0, "bytes": 500_000}, "100.0 % top-1, 1.1 points above its teacher, 2.2x smaller"),
        ({"top1_last": None}, "97.5 % top-1, 1.4 points below its teacher, 28x smaller"),
        ({"top1_last": float("nan"), "top1_best": None, "bytes": 0}, "accuracy not measured"),
    ],
)
def test_headline_follows_the_numbers(changes: dict[str, Any], expected: str) -> None:
    data = comparison()
    data["models"] = [data["models"][0], data["models"][2] | changes]
    if "top1_best" not in changes:
        data["models"][1]["top1_best"] = 97.54
    assert headline(data) == f"Student recu-itrd: {expected}"


def test_headline_names_the_best_student_wherever_it_stands() -> None:
    data = comparison()
    data["models"].reverse()
    assert headline(data).startswith("Student recu-itrd:")
    # A student trained without a teacher, and one in floats, which comes after the binary ones.
    data["models"] = [model("recu", 98.0, 1000, reference=None), model("float", 98.5, 9000, binary=False)]
    data["models"].append(model("teacher", 99.0, 8000, reference=None, binary=False))
    assert headline(data) == "Student recu: 98.0 % top-1, 1.0 points below its teacher, 8.0x smaller"
    assert headline({"models": [model("alone", 90.0, 10, reference="alone")]}) == "Model alone: 90.0 % top-1"


def test_comparison_table_shows_the_numbers_given(tmp_path: Path) -> None:
    page = written(comparison(), tmp_path)
    student, teacher = page.row("recu-itrd"), page.row("teacher")
    assert student[0] == "recu-itrd [resnet20, 1-bit]"
    assert student[1] == "97.20 [94.9\u201398.5]"
    assert student[2] == "97.45 [epoch 2]"
    assert student[3:5] == ["99.50", "\u22121.70"]
    assert student[5:] == ["98.13", "269,434", "38.5 kB", "28x", "40 M", "2.5 M", "0.0625 [native]"]
    assert teacher[4:6] == ["\u2014", "\u2014"]
    assert teacher[6:] == ["269,434", "1.08 MB", "1.0x", "0", "2.5 M", "0.9 [stock]"]
    assert "onnxruntime, 1 thread" in page.text["comparison"]
    assert "the best epoch was chosen too" in page.text["comparison"]
    data = comparison()
    data["dataset"]["val"] = 100
    assert "the best epoch was chosen too" not in written(data, tmp_path).text["comparison"]


def test_validation_shows_agreement_and_disagreements(tmp_path: Path) -> None:
    page = written(comparison(), tmp_path)
    onnx, tflite = page.row("student.onnx"), page.row("student.tflite")
    assert onnx[1:] == ["same answers", "100.00", "360", "2.0e-6", "3.0e-7", "97.20", "51.2 kB", "0.1", "80"]
    assert tflite[1:5] == ["1 of 360 differ", "99.72", "360", "0"]
    assert tflite[5] == tflite[8] == tflite[9] == "\u2014"
    listed = [row for row in page.rows if row[0].startswith("student.tflite")][1]
    assert listed[1:] == ["17", "class2", "class1", "1.0e-6"]


@pytest.mark.parametrize(
    ("artefact", "status"),
    [
        ({"agreement": 99.9999, "images": 10_000_000}, "10 of 10,000,000 differ"),
        ({"agreement": 99.9999, "images": 100}, "1 of 100 differ"),
        ({"agreement": 99.0}, "some differ"),
        ({"agreement": None}, "not checked"),
        ({"agreement": None, "error": "no <kernel>"}, "failed [no <kernel>]"),
    ],
)
def test_validation_never_calls_a_differing_file_the_same(
    tmp_path: Path, artefact: dict[str, Any], status: str
) -> None:
    student = model("recu", 95.0, 1000, artefacts=[{"file": "x.onnx", **artefact}])
    page = written({"models": [student]}, tmp_path)
    row = page.row("x.onnx")
    assert row[1] == status
    assert row[2] != "100.00"
    assert "0 of 1" in page.text["summary"]


def test_names_are_escaped(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>\"'&"
    text = json.dumps(comparison()).replace("class1", "CLASS").replace("recu-itrd", "NAME")
    data = json.loads(text)
    data["dataset"]["classes"] = ["a", evil, "c"]
    data["dataset"]["name"] = data["recipe"] = evil
    data["environment"][evil] = evil
    data["config"][evil] = evil
    student = data["models"][2]
    student |= {"name": evil, "network": evil, "method": evil, "ms_what": evil}
    student["artefacts"][1] |= {"target": evil, "file": evil}
    for row in student["curve"]:
        row["train_loss_parts"] = {evil: 1.0 / row["epoch"], "ce": 2.0 / row["epoch"]}
    data["differences"][0] |= {"predictions": {evil: 1, "teacher": evil}, "index": evil, "label": 1}
    data["differences"].append({"index": 1, "label": 1, "predictions": {}, "png": '"><script>'})
    page = written(data, tmp_path)
    assert "script" not in page.tags
    assert "<script" not in (tmp_path / "report.html").read_text(encoding="utf-8")
    for section in ("summary", *SECTIONS):
        assert evil in page.text[section] or section == "setup", section
    assert json.dumps(evil) in page.text["setup"]
    assert plot_curves(data, tmp_path / "curves.png").exists()


@pytest.mark.parametrize(
    "data",
    [
        {"models": []},
        {"models": [{}]},
        {"models": [{"name": "a"}, {"name": "a"}], "dataset": None, "environment": None, "config": {}},
        {"models": [dict.fromkeys(model("a", 1.0, 1))], "differences": None, "dataset": {"classes": None}},
        {"models": [model("a", 50.0, 10, curve=[{}], confusion=[[1, 2], [3]], per_class=[], artefacts=[{}])]},
        {"models": [model("a", 50.0, 0, curve=[{"test_top1": 50.0, "loss": float("nan")}])]},
        {
            "models": [
                model("teacher", 9.0, 10),
                model("a", 8.0, 10, per_class=[1.0], confusion=[[0] * 3] * 3),
            ]
        },
    ],
    ids=["no models", "empty model", "same names", "all None", "broken pieces", "one epoch", "mismatched"],
)
def test_missing_pieces(tmp_path: Path, data: dict[str, Any]) -> None:
    page = written(data, tmp_path)
    assert set(SECTIONS) <= set(page.text)
    assert "None" not in " ".join(page.text.values())
    assert "nan" not in " ".join(page.text.values())
    with Image.open(plot_curves(data, tmp_path / "curves.png")) as image:
        assert image.size == CURVES_PIXELS


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    page = written({"models": [{"name": "a"}]}, tmp_path)
    assert page.row("a")[1:] == ["\u2014"] * 11
    for section, words in (
        ("curves", "No curves were recorded."),
        ("tradeoffs", "Neither sizes nor times were measured."),
        ("classes", "The run recorded no accuracy per class"),
        ("confusion", "No confusion matrices"),
        ("differences", "The run recorded no image"),
        ("validation", "No files were exported."),
        ("setup", "The run recorded neither its machine"),
    ):
        assert words in page.text[section]


@pytest.mark.parametrize("data", [{}, {"models": None}, {"models": {"a": 1}}, {"models": ["a"]}])
def test_models_are_required(tmp_path: Path, data: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="models"):
        write_report(data, tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_other_formats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r'"format" of the comparison must be 1, got 2'):
        write_report({"format": 2, "models": []}, tmp_path / "report.html")


@pytest.mark.parametrize("classes", [100, 200])
def test_many_classes(tmp_path: Path, classes: int) -> None:
    data = comparison(classes)
    del data["models"][1]
    page = written(data, tmp_path)
    assert f"The 20 most changed of {classes} classes." in page.text["classes"]
    # The student's accuracy falls by one point per class, so the last twenty changed the most.
    chart = page.text["classes"]
    assert f"class{classes - 1}" in chart and f"class{classes - 20}" in chart
    assert f"class{classes - 21}" not in chart
    images = [value for tag, name, value in page.attributes if tag == "img" and name == "src"]
    sizes = []
    for source in images:
        with Image.open(io.BytesIO(base64.b64decode(source.split(",", 1)[1]))) as image:
            sizes.append(image.size)
    assert sizes == [(classes, classes)] * 2 + [(8, 8)]
    assert (tmp_path / "report.html").stat().st_size < 400_000


def test_most_frequent_mistakes_are_listed(tmp_path: Path) -> None:
    data = comparison()
    data["models"][2]["confusion"] = [[9, 0, 1], [0, 10, 0], [3, 2, 5]]
    words = "Most often mistaken: class2 as class0 (3), class2 as class1 (2), class0 as class2 (1)."
    assert words in written(data, tmp_path).text["confusion"]


def test_accuracy_per_class_comes_from_the_confusion_matrix_if_need_be(tmp_path: Path) -> None:
    data = comparison()
    teacher, student = data["models"][0], data["models"][2]
    teacher |= {"per_class": None, "confusion": [[10, 0, 0], [0, 10, 0], [0, 2, 8]]}
    student |= {"per_class": None, "confusion": [[5, 5, 0], [0, 10, 0], [0, 0, 10]]}
    text = written(data | {"models": [teacher, student]}, tmp_path).text["classes"]
    assert [float(value.replace("\u2212", "-")) for value in re.findall(r"[+\u2212]\d+\.\d", text)] == [
        20,
        -50,
    ]


def test_differences(tmp_path: Path) -> None:
    data = comparison()
    data["differences"] = [{**data["differences"][0], "index": i} for i in range(300)]
    data["differences"][1] |= {"png": png(200), "predictions": None}
    data["differences"][2]["png"] = base64.b64encode(b"GIF89a, not a PNG at all").decode()
    data["differences"][3]["png"] = None
    page = written(data, tmp_path)
    text = page.text["differences"]
    for words in (
        "true: class2",
        "image 0",
        "216 more",
        "60 further images",
        "no image",
    ):
        assert words in text
    assert text.count("class1 \u2717") == 239 and text.count("class2 \u2713") == 2 * 239
    kinds = [value for tag, name, value in page.attributes if tag == "img" and name == "class"]
    assert kinds.count("thumbnail pixelated") == 237  # small ones are enlarged with hard edges
    assert kinds.count("thumbnail") == 1


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    # Newcombe, Statistics in Medicine 1998, table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_interval(right: int, n: int, low: float, high: float) -> None:
    assert wilson_interval(100 * right / n, n) == pytest.approx((100 * low, 100 * high), abs=0.006)


def test_last_and_best() -> None:
    rows = [{"epoch": epoch, "test_top1": top1} for epoch, top1 in ((5, 50.0), (10, None), (15, 49.0))]
    assert last_and_best({"curve": rows}) == ((15, 49.0), (5, 50.0))
    assert last_and_best({"curve": rows, "best_epoch": 15}) == ((15, 49.0), (15, 49.0))
    assert last_and_best({"curve": rows, "best_epoch": 99}) == ((15, 49.0), (5, 50.0))
    assert last_and_best({"curve": None}) is None


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    with pytest.raises(RuntimeError), write_atomically(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    with write_atomically(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_importing_the_report_draws_in_no_plotting_library() -> None:
    code = "import sys, bnn_itrd.report; sys.exit(any(m in sys.modules for m in ('matplotlib', 'PIL', 'torch')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
