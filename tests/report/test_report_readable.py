"""What a reader sees: names that explain themselves, text large enough on a phone, colours with one meaning."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from helpers.report_pages import comparison, written

from bnn_itrd.plots import COLOURS
from bnn_itrd.plots.svg import TEXT, WIDTH, spaced
from bnn_itrd.report import headline
from bnn_itrd.report.style import STYLE
from bnn_itrd.report.view import View

# A phone of 400 pixels less the margins of the page and of a card, as the style sheet has them.
PHONE = 400 - 2 * 14 - 2 * 15 - 2


def named(**students: dict[str, Any]) -> dict[str, Any]:
    return comparison() | {"config": {"students": {key.replace("_", "-"): value for key, value in students.items()}}}


def test_names_explain_themselves(tmp_path: Path) -> None:
    data = named(recu={"ce": 1.0, "itrd": None}, recu_itrd={"ce": 1.0, "itrd": {"weight": 1.0}, "kd": None})
    assert headline(data).startswith("Student recu-itrd, distilled (ITRD): 97.2 % top-1")
    page = written(data, tmp_path)
    assert page.row("recu-itrd")[0] == "recu-itrd [distilled (ITRD)] [resnet20, 1-bit]"
    assert page.row("recu [")[0] == "recu [learned without a teacher] [resnet20, 1-bit]"
    assert page.row("teacher")[0] == "teacher [full-precision teacher] [resnet20, float]"
    for section in ("curves", "tradeoffs", "classes", "confusion"):
        assert "distilled (ITRD)" in page.text[section]


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({"students": {"recu-itrd": {"ce": 0.1, "kd": {}, "wcord": {}}}}, "distilled (KD, WCoRD)"),
        ({"students": {"recu-itrd": {"ce": 1.0, "mine": {"distiller": "a:b"}}}}, "distilled (mine)"),
        ({"distill": {"ce": 1.0, "fitnet": {}}}, "distilled (FitNet)"),  # that of bnn_itrd.distill
        ({"students": {"recu-itrd": 3}}, ""),
        ({}, ""),
        (None, ""),
    ],
)
def test_what_a_student_learned_from(config: dict[str, Any] | None, kind: str) -> None:
    view = View.of(comparison() | {"config": config})
    assert view.kind(view.models[2]) == kind


def test_text_of_charts_is_large_enough_on_a_phone(tmp_path: Path) -> None:
    data = comparison()
    data["models"][0]["confusion"] = [[1000, 0, 0], [1, 1000, 0], [0, 0, 10000]]
    written(data, tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    sizes = {
        float(size)
        for size in re.findall(r"\.chart[ .\w]*{[^}]*font-size:([\d.]+)px", STYLE.partition("@media(min")[0])
    }
    assert sizes == {TEXT}
    boxes = re.findall(r'<svg class="chart" viewBox="0 0 ([\d.]+) [\d.]+"( style="min-width:(\d+)px)?', page)
    assert len(boxes) == 3 + 2 + 3 + 2 + 3
    for width, fixed, least in boxes:
        if fixed:  # never made smaller: it scrolls
            assert float(least) >= float(width) - 0.51
        else:
            assert TEXT * PHONE / float(width) >= 11, width
    assert page.count('class="scroll inside"') == 3
    assert "font-size" not in re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)


def test_counts_fit_their_cells(tmp_path: Path) -> None:
    data = comparison()
    data["models"][0]["confusion"] = [[10000, 0, 0], [1, 1000, 0], [0, 0, 10]]
    written(data, tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    section = page.partition('id="confusion"')[2]
    wide = [float(value) for value in re.findall(r'<rect class="cell" [^>]*width="([\d.]+)"', section)[:9]]
    assert min(wide) >= 5 * 0.6 * TEXT


def test_tables_show_that_they_scroll(tmp_path: Path) -> None:
    page = written(comparison(), tmp_path)
    assert page.text["comparison"].count("swipe") == 1  # twelve columns
    assert "swipe" not in page.text["tradeoffs"]  # three
    boxes = [value for tag, name, value in page.attributes if tag == "div" and name == "tabindex"]
    assert len(boxes) == 4 + 3  # the tables of comparison, speed, files and answers, and three confusion matrices
    assert "local" in STYLE and "var(--shade)" in STYLE


def test_no_colour_of_a_model_means_another_thing(tmp_path: Path) -> None:
    models = {colour for pair in COLOURS for colour in pair}
    assert len(models) == 2 * len(COLOURS)
    assert models.isdisjoint(re.findall(r"#[0-9a-f]{6}\b", STYLE))
    written(comparison(), tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    # The bars of a student and the cells of its matrix have the colour that its name has.
    for chart in ("Change of accuracy per class, recu-itrd", "Confusion matrix of recu-itrd"):
        assert page.partition(f'aria-label="{chart}">')[2].startswith('<g style="--c:var(--s2)">')


def test_ticks_stand_clear_of_each_other() -> None:
    marks = [(10.0 * i, "100 kB") for i in range(8)]
    assert spaced(marks) == marks[::5]
    assert spaced([(0.0, "1"), (50.0, "2"), (100.0, "3")]) == [(0.0, "1"), (50.0, "2"), (100.0, "3")]
    assert spaced([]) == [] and WIDTH == 340
