"""The charts of the report and the PNG of the curves: each mark stands where its value belongs."""

from __future__ import annotations

import base64
import io
import itertools
import random
import re
from pathlib import Path

import numpy as np
import pytest
from helpers.report_pages import comparison, written
from PIL import Image

from bnn_itrd.plots import (
    CURVES_PIXELS,
    Dot,
    Line,
    bar_chart,
    colour_index,
    confusion_image,
    confusion_table,
    line_chart,
    place_labels,
    scatter_chart,
)
from bnn_itrd.report import plot_curves


def test_a_teacher_without_a_curve_is_a_level(tmp_path: Path) -> None:
    data = comparison()
    data["models"][0]["curve"] = []
    page = written(data, tmp_path)
    assert "no curve, dashed" in page.text["curves"]
    kinds = [value for tag, name, value in page.attributes if tag == "polyline" and name == "class"]
    assert kinds.count("curve dashed") == 1


def overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


@pytest.mark.parametrize("seed", range(6))
def test_labels_do_not_overlap(seed: int) -> None:
    rng = random.Random(seed)
    spread = (0, 3, 10, 30, 60, 100)[seed]  # from one and the same point to all over the plot
    anchors = [(120 + rng.uniform(-spread, spread), 140 + rng.uniform(-spread, spread)) for _ in range(10)]
    sizes = [(rng.uniform(30, 110), 13.0) for _ in anchors]
    boxes = place_labels(anchors, sizes, (50, 5, 498, 250))
    for box, (width, height) in zip(boxes, sizes, strict=True):
        assert (box[2] - box[0], box[3] - box[1]) == pytest.approx((width, height))
        assert box[0] >= 50 and box[1] >= 5 and box[2] <= 498 and box[3] <= 250
    assert not any(overlap(a, b) for a, b in itertools.combinations(boxes, 2))


def test_a_lone_label_stands_beside_its_point() -> None:
    assert place_labels([(100, 100)], [(40, 13)], (0, 0, 300, 300)) == [(108, 93.5, 148, 106.5)]


def places(svg: str, tag: str, *names: str) -> list[tuple[float, ...]]:
    found = re.findall(rf"<{tag} [^>]*>", svg)
    return [tuple(float(re.findall(rf' {n}="([^"]+)"', part)[0]) for n in names) for part in found]


def ticks(svg: str, anchor: str) -> dict[float, float]:
    """Pixel by value of the tick labels: anchor "end" for y, whose baseline is 3.8 low, "middle" for x."""
    found = re.findall(rf'<text class="tick" x="([\d.]+)" y="([\d.]+)" text-anchor="{anchor}">([\d.]+)<', svg)
    return {float(text): float(y) - 3.8 if anchor == "end" else float(x) for x, y, text in found}


@pytest.mark.parametrize("log", [False, True])
def test_line_chart_puts_points_at_their_ticks(log: bool) -> None:
    values = [0.1, 1.0, 10.0, 100.0] if log else [10.0, 30.0, 20.0, 40.0]
    points = list(zip([10.0, 20.0, 30.0, 40.0], values, strict=True))
    svg = line_chart([Line("a", points, "red", best=points[3])], label="x", y_label="y", log=log)
    (path,) = re.findall(r'<polyline[^>]*points="([^"]+)"', svg)
    drawn = [tuple(map(float, point.split(","))) for point in path.split()]
    at_x, at_y = ticks(svg, "middle"), ticks(svg, "end")
    assert set(values) & set(at_y) and {10, 20, 30, 40} <= set(at_x)
    for (x, y), (pixel_x, pixel_y) in zip(points, drawn, strict=True):
        assert pixel_x == pytest.approx(at_x[x], abs=0.11)
        if y in at_y:
            assert pixel_y == pytest.approx(at_y[y], abs=0.11)
    steps = [b[1] - a[1] for a, b in itertools.pairwise(drawn)]
    if log:
        assert steps == pytest.approx([steps[0]] * 3, abs=0.2) and steps[0] < 0
    else:
        assert steps[0] == pytest.approx(-2 * steps[1], abs=0.2) and steps[0] < 0
    dot, ring = places(svg, "circle", "cx", "cy")
    assert dot == ring == drawn[3]


def test_scatter_chart_takes_a_log_axis_for_large_ratios() -> None:
    def chart(xs: list[float]) -> str:
        dots = [Dot(f"d{x}", x, 90.0, "red") for x in xs]
        return scatter_chart(dots, label="l", x_label="size", y_label="top-1", x_text=lambda x: f"{x:g}")

    even = chart([100.0, 200.0, 300.0])
    assert "log scale" not in even
    (a,), (b,), (c,) = places(even, "circle", "cx")
    assert b - a == pytest.approx(c - b, abs=0.2)
    wide = chart([10.0, 100.0, 1000.0])
    assert "(log scale)" in wide
    (a,), (b,), (c,) = places(wide, "circle", "cx")
    assert b - a == pytest.approx(c - b, abs=0.2)
    assert ticks(wide, "middle")[100] == pytest.approx(b, abs=0.11)
    assert wide.count('class="label"') == 3
    assert chart([0.0, 10.0]).count("<circle") == 2


def test_bar_chart_bars_are_in_proportion() -> None:
    svg = bar_chart([("up", 10.0), ("none", 0.0), ("down", -20.0)], low=-20.0, high=10.0, colour="red", label="l")
    bars = places(svg, "rect", "x", "width")
    ((zero,),) = places(svg, "line", "x1")
    assert bars[2][1] == pytest.approx(2 * bars[0][1], abs=0.2) and bars[1][1] == 0
    assert bars[0][0] == pytest.approx(zero, abs=0.11)
    assert sum(bars[2]) == pytest.approx(zero, abs=0.11)
    assert "+10.0" in svg and "&minus;20.0" in svg


def test_confusion_table_has_the_counts_in_order() -> None:
    svg = confusion_table([[7, 1], [0, 8]], ["no", "<yes>"], colour="red", label="l")
    counts = re.findall(r'class="count[^>]*>([^<]+)<', svg)
    assert counts == ["7", "1", "8"]
    assert "&lt;yes&gt;" in svg
    depth = [float(value) for value in re.findall(r'fill-opacity="([^"]+)"', svg)]
    assert depth == pytest.approx([7 / 8, (1 / 8) ** 0.5, 1.0], abs=0.006)


def test_confusion_image_has_one_pixel_per_cell() -> None:
    source = confusion_image([[4, 0, 0], [1, 2, 1], [0, 0, 0]], colour=(1, 20, 255))
    with Image.open(io.BytesIO(base64.b64decode(source.split(",", 1)[1]))) as image:
        assert image.size == (3, 3) and image.mode == "RGBA"
        pixels = np.asarray(image).astype(int)
    # sqrt(1/4) = 1/2 for the mistakes
    assert pixels[..., 3].tolist() == [[255, 0, 0], [128, 128, 128], [0, 0, 0]]
    assert pixels[0, 0].tolist() == [1, 20, 255, 255] and pixels[1, 0, :3].tolist() == [1, 20, 255]


def test_charts_refuse_nothing_to_draw() -> None:
    with pytest.raises(ValueError, match="give one point or more"):
        line_chart([Line("a", [], "red")], label="l", y_label="y")
    with pytest.raises(ValueError, match="give one point or more"):
        scatter_chart([], label="l", x_label="x", y_label="y", x_text=str)


def test_only_the_teacher_has_the_first_colour() -> None:
    assert [colour_index(i) for i in range(17)] == [0, 1, 2, 3, 4, 5, 6, 7, 1, 2, 3, 4, 5, 6, 7, 1, 2]


def test_plot_curves_draws_every_model(tmp_path: Path) -> None:
    data = comparison()
    # Names that matplotlib would take for a formula, or hide.
    data["models"][1]["name"], data["models"][2]["name"] = "$\\broken{", "_hidden"
    path = plot_curves(data, tmp_path / "deep" / "curves.png")
    assert [p.name for p in path.parent.iterdir()] == ["curves.png"]
    with Image.open(path) as image:
        assert image.format == "PNG" and image.size == CURVES_PIXELS
        pixels = np.asarray(image.convert("RGB"))
    for colour in ((0x47, 0x55, 0x69), (0x25, 0x63, 0xEB), (0xC8, 0x5F, 0x00)):
        assert (pixels == colour).all(-1).sum() > 300
    assert not (pixels == (0x8B, 0x3F, 0xD9)).all(-1).any()  # the fourth model's


def test_plot_curves_of_a_long_training(tmp_path: Path) -> None:
    data = comparison()
    for entry in data["models"]:
        entry["curve"] = [{"epoch": e, "loss": 100.0 / e**2, "test_top1": 90 - 80 / e} for e in range(1, 61)]
    with Image.open(plot_curves(data, tmp_path / "curves.png")) as image:
        assert image.size == CURVES_PIXELS
