"""Speed in the report: each form against the teacher, in words, with its spread; and when the run was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.report_pages import comparison, written

from bnn_itrd.report.speed import Speed, speed_in_words, speeds
from bnn_itrd.report.view import View

NATIVE = {"form": "native", "ms_per_image": 0.35, "ratio": 2.571, "ratio_low": 2.41, "ratio_high": 2.83}
STOCK = {"form": "stock", "ms_per_image": 2.36, "ratio": 0.381, "ratio_low": 0.3, "ratio_high": 0.4249}


def timed(*rows: dict[str, Any]) -> dict[str, Any]:
    """A comparison whose best student has these rows of speed."""
    data = comparison()
    data["models"][0]["speed"] = [{"form": "stock", "ms_per_image": 0.9, "ratio": 1.0}]
    data["models"][2] |= {"speed": list(rows), "ms_per_image": rows[0]["ms_per_image"]}
    return data


def words(data: dict[str, Any]) -> str:
    view = View.of(data)
    return speed_in_words(view, view.models[2])


def test_both_forms_stand_against_the_teacher_in_words(tmp_path: Path) -> None:
    data = timed(NATIVE, STOCK)
    sentence = (
        "2.6 times as fast as its teacher with the native library (2.4 to 2.8), "
        "0.38 times in stock onnxruntime (slower; 0.3 to 0.42)"
    )
    assert words(data) == sentence
    page = written(data, tmp_path)
    assert f"recu-itrd: {sentence}." in page.text["tradeoffs"]
    assert "0.35 ms an image; 0.38 times in stock onnxruntime" in page.text["summary"]
    rows = [row for row in page.rows if row[0].startswith("recu-itrd [") and len(row) == 3]
    assert rows == [
        ["recu-itrd [with the native library]", "0.35", "2.6 [2.4 to 2.8]"],
        ["recu-itrd [in stock onnxruntime]", "2.36", "0.38 [0.3 to 0.42]"],
    ]
    assert "The speed of" not in page.text["validation"]


def test_an_older_record_says_what_it_lacks(tmp_path: Path) -> None:
    data = comparison()  # 0.9 ms and 0.0625 ms, the file's `native` is true; no row of speed
    assert words(data) == "14 times as fast as its teacher with the native library"
    page = written(data, tmp_path)
    assert "How much they vary was not recorded." in page.text["tradeoffs"]
    validation = page.text["validation"]
    assert "The speed of recu-itrd in stock onnxruntime: the run timed files only with the native library." in (
        validation
    )
    assert "bnn-itrd bench recu-itrd/student.onnx --against teacher/teacher.onnx" in validation


def test_without_the_library_the_stock_form_is_not_called_native(tmp_path: Path) -> None:
    data = timed(STOCK)
    assert words(data) == "0.38 times as fast as its teacher in stock onnxruntime (slower; 0.3 to 0.42)"
    page = written(data, tmp_path)
    assert "with the native library" not in page.text["tradeoffs"]
    assert "The speed of recu-itrd with the native library: the library was missing" in page.text["validation"]


@pytest.mark.parametrize("rows", [[{}], [{"form": "gpu", "ms_per_image": 1.0}], [{"form": "stock"}]])
def test_a_row_that_says_nothing_is_left_out(rows: list[dict[str, Any]]) -> None:
    data = comparison()
    data["models"][2] |= {"speed": rows, "ms_per_image": None}
    assert words(data) == ""


def test_without_a_teacher_there_is_a_time_and_no_ratio(tmp_path: Path) -> None:
    data = timed(NATIVE, STOCK)
    data["models"] = [data["models"][2] | {"reference": None}]
    view = View.of(data)
    assert speeds(view, view.models[0]) == [
        Speed("native", 0.35, None, None, None),
        Speed("stock", 2.36, None, None, None),
    ]
    page = written(data, tmp_path)
    assert "0.35 ms" in page.text["summary"] and "as fast as" not in page.text["summary"]


def test_the_charts_have_one_point_per_network(tmp_path: Path) -> None:
    page = written(timed(NATIVE, STOCK), tmp_path)
    source = (tmp_path / "report.html").read_text(encoding="utf-8")
    charts = source.partition('id="tradeoffs"')[2].partition("</section>")[0].split("<svg")[1:]
    assert len(charts) == 2
    assert [chart.partition("</svg>")[0].count("<circle") for chart in charts] == [3, 3]
    assert "recu-itrd with the native library" in page.text["tradeoffs"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"date": "2026-11-27T07:15:04+00:00", "wall_seconds": 312.0},
            "27 November 2026, 07:15 UTC · took 5.2 min, 18 s of it training",
        ),
        ({"date": "2026-11-27T08:15:04+01:00", "wall_seconds": None}, "27 November 2026, 07:15 UTC · 18 s of training"),
        ({"wall_seconds": 4.0}, "18 s of training · the last command took 4 s"),
        ({"date": "yesterday"}, "18 s of training"),
        ({"wall_seconds": float("nan")}, "18 s of training"),
    ],
)
def test_date_and_wall_time_of_the_run(tmp_path: Path, changes: dict[str, Any], expected: str) -> None:
    summary = written(comparison() | changes, tmp_path).text["summary"]
    assert expected in summary
    assert "yesterday" not in summary
