import dataclasses
import itertools
import math

import polars as pl
import pytest
import vl_convert

from ipvit.analysis import charts


def accuracies(models: list[str], levels: list[float], **columns: object) -> pl.DataFrame:
    """A falling accuracy per model, with an interval of plus or minus two."""
    rows = [
        {"model": model, "level": level, "top1": 80 * (1 - level) - i, "n_images": 100} | columns
        for i, model in enumerate(models)
        for level in levels
    ]
    return pl.DataFrame(rows).with_columns(top1_low=pl.col("top1") - 2, top1_high=pl.col("top1") + 2)


def drawn(chart) -> str:
    """The picture itself: a specification that Vega-Lite cannot compile raises."""
    return vl_convert.vegalite_to_svg(chart.to_json())


def curve(frame: pl.DataFrame, *, facet: str | None = None, **options):
    return charts.curve(frame, charts.Encoding(x="level", y="top1", facet=facet), **options)


def look_of_series(chart) -> list[tuple]:
    layers = chart.to_dict()["layer"]
    ranges = {}
    for layer in layers:
        for channel in ("color", "shape", "strokeDash"):
            if channel in layer["encoding"]:
                ranges[channel] = [str(value) for value in layer["encoding"][channel]["scale"]["range"]]
    return list(zip(*(ranges[channel] for channel in ("color", "shape", "strokeDash")), strict=True))


@pytest.mark.parametrize("n_models", [1, 2, 8, 20])
def test_every_model_gets_a_look_of_its_own(n_models):
    models = [f"a_rather_long_model_name_patch16_224.in21k_ft_in1k_{i}" for i in range(n_models)]
    chart = curve(accuracies(models, [0.1, 0.5, 0.9]), title="PatchDrop")
    assert len(set(look_of_series(chart))) == n_models
    svg = drawn(chart)
    assert all((f">{name}</text>" in svg) == (n_models > 1) for name in models), "a legend where there are several"


def test_series_of_one_model_share_their_colour_and_differ_in_dash_and_in_the_marker_that_a_legend_shows():
    frame = pl.concat(
        accuracies([f"net{i}" for i in range(9)], [0.1, 0.5]).with_columns(
            series=pl.format("{}, {}", "model", pl.lit(kind))
        )
        for kind in ("patch", "noise")
    )
    looks = look_of_series(charts.curve(frame, charts.Encoding(x="level", y="top1", series="series", group="model")))
    assert len(set(looks)) == 18
    for patch, noise in zip(looks[::2], looks[1::2], strict=True):
        assert patch[0] == noise[0] and patch[1] != noise[1] and patch[2] != noise[2]
    assert len({look[0] for look in looks}) == 9


def test_neighbouring_series_differ_in_more_than_colour():
    looks = look_of_series(curve(accuracies(list("abcdefg"), [0.1, 0.9])))
    for (_, shape, dash), (_, next_shape, next_dash) in itertools.pairwise(looks):
        assert shape != next_shape and dash != next_dash


def test_a_curve_has_a_band_a_line_and_points():
    marks = [layer["mark"]["type"] for layer in curve(accuracies(["a"], [0.1, 0.9])).to_dict()["layer"]]
    assert marks == ["area", "line", "point"]


def test_a_single_level_gets_an_error_bar_for_a_band():
    chart = curve(accuracies(["a", "b"], [0.5]))
    assert [layer["mark"]["type"] for layer in chart.to_dict()["layer"]] == ["rule", "line", "point"]
    drawn(chart)


@pytest.mark.parametrize("missing", ["no columns", "null columns"])
def test_without_intervals_there_is_no_band(missing):
    frame = accuracies(["a"], [0.1, 0.9])
    empty = pl.lit(None, dtype=pl.Float64)
    frame = (
        frame.drop("top1_low", "top1_high")
        if missing == "no columns"
        else frame.with_columns(top1_low=empty, top1_high=empty)
    )
    chart = curve(frame)
    assert [layer["mark"]["type"] for layer in chart.to_dict()["layer"]] == ["line", "point"]
    assert "interval" not in chart.to_json()


def test_the_interval_is_that_of_the_measured_quantity():
    frame = accuracies(["a"], [0.1, 0.9])
    rows = frame.filter(pl.col("level") == 0.1)
    vertical, horizontal = charts.Encoding(x="level", y="top1"), charts.Encoding(x="top1", y="model")
    drawings = [
        (charts.curve(frame, vertical), "y"),
        (charts.bars(frame, vertical), "y"),
        (charts.dots(frame, vertical), "y"),
        (charts.dots(rows, horizontal), "x"),
    ]
    for chart, axis in drawings:
        (ends,) = (layer["encoding"] for layer in chart.to_dict()["layer"] if f"{axis}2" in layer["encoding"])
        assert (ends[axis]["field"], ends[f"{axis}2"]["field"]) == ("top1_low", "top1_high")
    for chart in (
        charts.dots(frame, dataclasses.replace(vertical, interval=False)),
        charts.dots(rows, dataclasses.replace(horizontal, interval=False)),
    ):
        assert "top1_low" not in chart.to_json() and "interval" not in chart.to_json()


def test_an_encoding_sets_the_ends_of_both_axes():
    encoding = charts.Encoding(x="level", y="top1", x_domain=(0.01, 1), y_domain=(0, 100), x_scale="log")
    channels = charts.curve(accuracies(["a"], [0.1, 0.9]), encoding).to_dict()["layer"][-1]["encoding"]
    assert channels["x"]["scale"] == {"type": "log", "domain": [0.01, 1]}
    assert channels["y"]["scale"] == {"domain": [0, 100]}


def test_values_that_are_not_numbers_are_gaps():
    frame = accuracies(["a"], [0.1, 0.5, 0.9]).with_columns(
        top1=pl.when(pl.col("level") == 0.5).then(math.nan).otherwise(pl.col("top1")),
        top1_low=pl.when(pl.col("level") == 0.9).then(math.inf).otherwise(pl.col("top1_low")),
    )
    values = curve(frame).data.values
    assert [row["level"] for row in values] == [0.1, 0.9]
    assert [row["top1_low"] for row in values] == [pytest.approx(70), None]


def test_the_tooltip_says_interval_and_number_of_images():
    chart = curve(accuracies(["a"], [0.1, 0.9])).to_dict()
    titles = [tip["title"] for tip in chart["layer"][-1]["encoding"]["tooltip"]]
    assert titles == ["model", "level", "top1", "95 % interval", "images"]
    assert '"70.0 to 74.0"' in curve(accuracies(["a"], [0.1, 0.9])).to_json()


def test_panels_follow_the_order_of_the_rows():
    frame = pl.concat([accuracies(["a", "b"], [0.1, 0.9], mode=mode) for mode in ("salient", "random", "block")])
    chart = curve(frame, facet="mode")
    assert chart.to_dict()["facet"]["sort"] == ["salient", "random", "block"]
    svg = drawn(chart)
    assert svg.index(">salient<") < svg.index(">random<") < svg.index(">block<")


def test_text_on_the_horizontal_axis_keeps_its_order():
    frame = pl.DataFrame({"model": ["a"] * 3, "grid": ["2x2", "14x14", "4x4"], "top1": [3.0, 2.0, 1.0]})
    svg = drawn(charts.curve(frame, charts.Encoding(x="grid", y="top1")))
    assert svg.index(">2x2<") < svg.index(">14x14<") < svg.index(">4x4<")


def test_bars_are_grouped_by_model_or_stand_alone():
    frame = pl.concat([accuracies(["a", "b"], [0.5], mode=mode) for mode in ("random", "salient")])
    grouped = charts.bars(frame, charts.Encoding(x="mode", y="top1"))
    alone = charts.bars(frame.head(2), charts.Encoding(x="model", y="top1"))
    assert "xOffset" in grouped.to_json() and "xOffset" not in alone.to_json()
    assert drawn(grouped) and drawn(alone)


def test_dots_name_rows_by_text_and_place_numbers():
    frame = accuracies(["a", "b"], [0.1, 0.9])
    rows = charts.dots(frame.filter(pl.col("level") == 0.1), charts.Encoding(x="top1", y="model")).to_dict()
    scattered = charts.dots(frame, charts.Encoding(x="level", y="top1")).to_dict()
    assert rows["layer"][-1]["encoding"]["y"]["type"] == "nominal"
    assert scattered["layer"][-1]["encoding"]["y"]["type"] == "quantitative"


def test_series_may_be_numbers():
    frame = accuracies(["a"], [0.1, 0.9], head=3)
    assert drawn(charts.curve(frame, charts.Encoding(x="level", y="top1", series="head")))


def test_the_same_table_gives_the_same_chart():
    frame = accuracies(["a", "b"], [0.1, 0.5, 0.9])
    assert curve(frame).to_json() == curve(frame).to_json()


def test_a_chart_is_not_limited_to_five_thousand_rows():
    assert drawn(
        charts.dots(
            accuracies([str(i) for i in range(6)], [i / 1000 for i in range(1000)]),
            charts.Encoding(x="level", y="top1"),
        )
    )
