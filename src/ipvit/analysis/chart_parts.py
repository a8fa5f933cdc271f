"""What the charts have in common: the house style, the look of a series, scales, tooltips and the legend.

Colours are Okabe and Ito's (Color Universal Design, 2008) without yellow and black, so every line shows on white and
on dark; dashes and marker shapes repeat what the colours say, for print and for colour-blind readers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import altair as alt
import polars as pl

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C8C8C")
SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "triangle-right", "triangle-left")
DASHES = ([1, 0], [7, 3], [2, 2], [9, 3, 2, 3])
FONT = "Liberation Sans, Arial, Helvetica, sans-serif"  # metric-compatible: text is measured alike everywhere
WIDTH, HEIGHT = 520, 300
FACET_WIDTH, FACET_HEIGHT = 250, 210
_CHARACTER = 5.8  # mean width of a legend character, pixels


def theme() -> dict[str, Any]:
    """Return the house style as a Vega-Lite ``config``."""
    ink, soft, grid = "#1f2328", "#57606a", "#d8dee4"
    return {
        "font": FONT,
        "background": "white",
        "padding": 8,
        "view": {"stroke": None},
        "title": {"fontSize": 14, "fontWeight": 600, "anchor": "start", "color": ink, "offset": 12, "limit": 0},
        "axis": {
            "labelFontSize": 11.5,
            "titleFontSize": 12,
            "titleFontWeight": "normal",
            "titlePadding": 8,
            "labelColor": soft,
            "titleColor": ink,
            "domainColor": soft,
            "tickColor": soft,
            "tickSize": 4,
            "gridColor": grid,
            "gridOpacity": 0.7,
            "labelLimit": 260,
        },
        "axisXQuantitative": {"grid": False},
        "axisBand": {"grid": False},
        "axisPoint": {"grid": False},
        "legend": {
            "labelFontSize": 11.5,
            "labelColor": ink,
            "labelLimit": 0,
            "title": None,
            "symbolSize": 90,
            "symbolStrokeWidth": 0.5,
            "rowPadding": 4,
            "columnPadding": 16,
        },
        "header": {"labelFontSize": 12, "labelFontWeight": 600, "labelColor": ink, "title": None, "labelLimit": 0},
        "range": {"category": list(COLOURS)},
    }


class Look:
    """Colour, dash, shape and the legend's selection for the values of one column, in order of appearance."""

    def __init__(self, frame: pl.DataFrame, series: str) -> None:
        self.names = frame[series].cast(pl.String).drop_nulls().unique(maintain_order=True).to_list()
        self.selection = alt.selection_point(
            name="shown",
            fields=[series],
            bind="legend",
            toggle="true",
            value=cast(Any, [{series: name} for name in self.names]),
        )
        self.colour = alt.Color(field=series, type="nominal", scale=self._scale(COLOURS), sort=self.names, title=None)
        self.shape = alt.Shape(field=series, type="nominal", scale=self._scale(SHAPES), sort=self.names, title=None)
        self.dash = alt.StrokeDash(field=series, type="nominal", scale=self._scale(DASHES), sort=self.names, title=None)

    def _scale(self, values: Sequence[Any]) -> alt.Scale:
        return alt.Scale(domain=self.names, range=[values[i % len(values)] for i in range(len(self.names))])

    def shown(self, opacity: float) -> Any:
        """The opacity of a series that the legend shows; 0 for a hidden one."""
        return alt.when(self.selection).then(alt.value(opacity)).otherwise(alt.value(0))

    def legend_columns(self, width: int) -> int:
        """How many names fit side by side in ``width`` pixels."""
        longest = max((len(name) for name in self.names), default=1)
        return max(1, min(len(self.names), int(width // (longest * _CHARACTER + 36))))


def bands(
    base: alt.Chart,
    data: pl.DataFrame,
    x: str,
    series: str,
    low: str,
    high: str,
    value: alt.Y,
    look: Look,
) -> list[alt.Chart]:
    """Confidence bands, and error bars for series whose only x value gives a band no width."""
    known = base.transform_filter(present(low, high))
    ends = {"y": end_like(low, value), "y2": alt.Y2(field=high), "color": look.colour}
    if data[x].n_unique() <= 1:
        return [known.mark_rule(strokeWidth=1.8).encode(**ends, opacity=look.shown(0.8))]
    return [
        known.mark_area(clip=True, fillOpacity=min(0.16, 1 / len(look.names))).encode(**ends, opacity=look.shown(1.0))
    ]


def finish(
    layers: list[alt.Chart],
    data: pl.DataFrame,
    title: str | None,
    facet: str | None,
    columns: int,
    width: int | None,
    height: int | None,
    look: Look,
    legend: bool = True,
) -> alt.LayerChart | alt.FacetChart:
    """Stack the layers, split them into panels, place the legend and apply the house style."""
    width = width or (FACET_WIDTH if facet else WIDTH)
    # the legend belongs to the first layer: a selection bound to it from any other layer would not hear its clicks
    layers = [layers[0].properties(name="first").add_params(look.selection), *layers[1:]]
    chart: Any = alt.layer(*layers).properties(width=width, height=height or (FACET_HEIGHT if facet else HEIGHT))
    across = 1
    if facet is not None:
        panels = data[facet].unique(maintain_order=True).to_list()
        columns = min(columns, len(panels))
        across = columns
        chart = chart.facet(facet=alt.Facet(field=facet, type="nominal", sort=panels, title=None), columns=columns)
        chart = chart.properties(data=inline(data))
    if title is not None:
        chart = chart.properties(title=title)
    config = theme()
    config["legend"] |= {"orient": "bottom", "columns": look.legend_columns(width * across + 40)}
    config["legend"]["disable"] = not legend or len(look.names) < 2
    return chart.configure(**config)


def prepare(
    frame: pl.DataFrame,
    wanted: Sequence[str | None],
    series: str,
    value: str,
    low: str | None,
    high: str | None,
    number: str,
) -> pl.DataFrame:
    """The columns a chart uses, non-finite numbers as null, plus a text column with the interval for tooltips."""
    names = list(dict.fromkeys(name for name in wanted if name is not None and name in frame.columns))
    data = frame.select(names).with_columns(
        pl.when(pl.col(name).is_finite()).then(pl.col(name)).alias(name)
        for name in names
        if frame.schema[name].is_float()
    )
    data = data.with_columns(pl.col(series).cast(pl.String))
    if low and high:
        digits = digits_of(number)
        factor = 100 if number.endswith("%") else 1
        ends = [(pl.col(end) * factor).round(digits).cast(pl.String) for end in (low, high)]
        data = data.with_columns(pl.concat_str([ends[0], pl.lit(" to "), ends[1]]).alias("interval"))
    return data.filter(pl.col(value).is_not_null())


def inline(data: pl.DataFrame) -> alt.InlineData:
    """The rows inside the chart, in their order and without Altair's limit of 5000."""
    return alt.InlineData(values=data.to_dicts())


def interval_columns(frame: pl.DataFrame, low: str | None, high: str | None) -> tuple[str | None, str | None]:
    """Both ends, or neither where one is missing or empty."""
    for end in (low, high):
        if end is None or end not in frame.columns or frame[end].null_count() == frame.height:
            return None, None
    return low, high


def value_channel(y: str, title: str | None, domain: tuple[float, float] | None, zero: bool = False) -> alt.Y:
    """The vertical axis of a measured quantity."""
    scale = alt.Scale(zero=zero, nice=True) if domain is None else alt.Scale(domain=list(domain))
    return alt.Y(field=y, type="quantitative", title=title or words(y), scale=scale)


def numeric_scale(domain: tuple[float, float] | None, padding: int) -> alt.Scale:
    """A linear scale over the data's range, or over a given one."""
    return alt.Scale(zero=False, nice=False, padding=padding) if domain is None else alt.Scale(domain=list(domain))


def end_like(low: str, like: Any) -> Any:
    """The same channel for the low end of the interval: title and scale as the value's."""
    copied = like.copy(deep=True)
    copied["field"] = low
    return copied


def present(low: str, high: str) -> str:
    """A Vega expression: this row has an interval."""
    return f"isValid(datum[{low!r}]) && isValid(datum[{high!r}])"


def tooltips(
    frame: pl.DataFrame,
    series: str,
    places: list[tuple[str, str | None, str | None]],
    value: tuple[str, str | None, str],
    low: str | None,
    n: str,
    facet: str | None,
) -> list[alt.Tooltip]:
    """What is shown under the pointer: where, the value, its interval and the number of images."""
    tips = [alt.Tooltip(field=series, type="nominal", title=words(series))]
    if facet is not None and facet not in (series, places[0][0] if places else None):
        tips.append(alt.Tooltip(field=facet, type="nominal", title=words(facet)))
    for name, title, number in places:
        kind = "quantitative" if frame.schema[name].is_numeric() else "nominal"
        tips.append(alt.Tooltip(field=name, type=kind, title=title or words(name), format=number or alt.Undefined))
    name, title, number = value
    tips.append(alt.Tooltip(field=name, type="quantitative", title=title or words(name), format=number))
    if low is not None:
        tips.append(alt.Tooltip(field="interval", type="nominal", title="95 % interval"))
    if n in frame.columns:
        tips.append(alt.Tooltip(field=n, type="quantitative", title="images", format=",d"))
    return tips


def words(column: str) -> str:
    """A column's name as text."""
    return column.replace("_", " ")


def digits_of(number: str) -> int:
    """Decimals of a d3 format such as ``.1f`` or ``.0%``; 2 where it does not say."""
    digits = "".join(c for c in number.partition(".")[2] if c.isdigit())
    return int(digits) if digits else 2


def fits(values: pl.Series, width: int = WIDTH) -> bool:
    """Whether the labels of an axis of ``width`` pixels fit side by side."""
    labels = [str(value) for value in values.unique().to_list()]
    return len(labels) * (max(map(len, labels), default=0) * _CHARACTER + 8) <= width
