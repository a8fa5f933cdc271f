"""Figures as wide as the columns of a paper."""

import re

import numpy as np
import polars as pl
import pytest

from ipvit.analysis import charts
from ipvit.analysis.heatmaps import mosaic
from ipvit.report.figures import save_figure
from ipvit.report.paper_figures import SMALLEST_TEXT, WIDTHS, save_for_paper

LONG = [f"vit_base_patch16_224_with_a_very_long_name.epoch_{i}_of_a_run" for i in range(9)]


def rows(models: list[str]) -> pl.DataFrame:
    found = [
        {"model": model, "level": level, "panel": panel, "top1": 50.0, "n_images": 100}
        for model in models
        for panel in ("one", "two", "three", "four")
        for level in (0.0, 0.5, 0.9)
    ]
    return pl.DataFrame(found).with_columns(top1_low=pl.lit(40.0), top1_high=pl.lit(60.0))


def curve(models: list[str]):
    title = "Accuracy with an adversarial patch, and with noise in its place, on images of everything"
    return charts.curve(
        rows(models).filter(pl.col("panel") == "one"), charts.Encoding(x="level", y="top1"), title=title
    )


def panels(models: list[str]):
    return charts.curve(rows(models), charts.Encoding(x="level", y="top1", facet="panel"), title="Panels", columns=4)


def dots(models: list[str]):
    one = rows(models).filter((pl.col("panel") == "one") & (pl.col("level") == 0.5))
    return charts.dots(one, charts.Encoding(x="top1", y="model"), title="Dots")


def bars(models: list[str]):
    return charts.bars(rows(models).filter(pl.col("level") == 0.5), charts.Encoding(x="panel", y="top1"), title="Bars")


def maps(models: list[str]):
    cells = np.linspace(0, 1, 16).reshape(4, 4)
    return mosaic(
        [(f"block {b}", str(h), cells) for b in range(3) for h in range(12)],
        title="Maps",
        row_title="",
        column_title="head",
    )


@pytest.mark.slow
@pytest.mark.parametrize("models", [["deit", "resnet"], LONG], ids=["short", "long"])
@pytest.mark.parametrize("draw", [curve, panels, dots, bars, maps])
def test_a_figure_is_no_wider_than_a_column_and_its_text_can_be_read(draw, models, tmp_path):
    paths = save_for_paper(draw(models), tmp_path / "figure")
    assert sorted(path.name for path in paths) == [
        f"figure-{ending}.{kind}" for ending in sorted(WIDTHS) for kind in ("pdf", "svg")
    ]
    for ending, inches in WIDTHS.items():
        svg = (tmp_path / f"figure-{ending}.svg").read_text("utf-8")
        assert float(re.search(r'<svg[^>]*? width="([\d.]+)', svg)[1]) <= 96 * inches
        sizes = [float(size) for size in re.findall(r'font-size="([\d.]+)px?"', svg)]
        assert min(sizes) >= SMALLEST_TEXT / 72 * 96 - 0.01
        pdf = (tmp_path / f"figure-{ending}.pdf").read_bytes()
        box = re.search(rb"/MediaBox ?\[([^\]]*)\]", pdf)[1].split()
        assert float(box[2]) <= 72 * inches + 0.5


def test_long_names_in_a_legend_stay_distinct(tmp_path):
    svg = save_for_paper(curve(LONG), tmp_path / "f")[0].read_text("utf-8")
    names = set(re.findall(r">(vit_base[^<]*)<", svg))
    assert len(names) == len(LONG) and all("…" in name for name in names)


def test_long_names_of_rows_are_cut_in_the_middle_in_every_figure(tmp_path):
    names = [f"{'x' * 60}{i}" for i in range(3)]
    (path,) = save_figure(dots(names), tmp_path / "f", ("svg",))
    shown = set(re.findall(r">(xx[^<]*)<", path.read_text("utf-8")))
    assert len(shown) == 3 and all(len(name) < 50 for name in shown)
