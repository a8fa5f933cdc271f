"""The charts every experiment draws: curves, bars and dots with confidence intervals, in one house style.

Colours are Okabe and Ito's (Color Universal Design, 2008) without yellow and black, so every line shows on white and
on dark; dashes and marker shapes repeat what the colours say, for print and for colour-blind readers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

import altair as alt
import polars as pl

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C8C8C")
SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "triangle-right", "triangle-left")
DASHES = ([1, 0], [7, 3], [2, 2], [9, 3, 2, 3])
FONT = "Liberation Sans, Arial, Helvetica, sans-serif"  # metric-compatible: text is measured alike everywhere
WIDTH, HEIGHT = 520, 300
_FACET_WIDTH, _FACET_HEIGHT = 250, 210
_CHARACTER = 5.8  # mean width of a legend character, pixels

Scale = Literal["linear", "log", "ordinal"]


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
            "symbolStrokeWidth": 2,
            "rowPadding": 4,
            "columnPadding": 16,
        },
        "header": {"labelFontSize": 12, "labelFontWeight": 600, "labelColor": ink, "title": None, "labelLimit": 0},
        "range": {"category": list(COLOURS)},
    }


def curve(
    frame: pl.DataFrame,
    x: str,
    y: str,
    low: str | None = None,
    high: str | None = None,
    series: str = "model",
    *,
    x_title: str | None = None,
    y_title: str | None = None,
    title: str | None = None,
    x_format: str | None = None,
    y_format: str = ".1f",
    x_scale: Scale = "linear",
    y_domain: tuple[float, float] | None = None,
    facet: str | None = None,
    columns: int = 3,
    n: str = "n_images",
    width: int | None = None,
    height: int | None = None,
) -> alt.LayerChart | alt.FacetChart:
    """Draw one line per series with points and a confidence band.

    A click on a name in the legend hides or shows that series. Where a series has a single x value, an error bar
    stands for the band.

    Args:
        frame: one row per point; NaN and null are gaps.
        x: column of the horizontal axis; text is drawn in the order of its first appearance.
        y: column of the vertical axis.
        low: column with the interval's low end; None, or a column that is not in ``frame``, draws no interval.
        high: column with the interval's high end.
        series: column that tells lines apart, usually ``model``.
        x_title: title of the axis; the column's name with spaces by default.
        y_title: title of the axis; the column's name with spaces by default.
        title: title above the chart.
        x_format: d3 format of x labels, for example ``"%"`` or ``".0%"`` for a share.
        y_format: d3 format of values in tooltips.
        x_scale: ``linear``, ``log`` or ``ordinal`` (evenly spaced values).
        y_domain: ends of the vertical axis; by default the data's.
        facet: column with one panel per value, for example the PatchDrop mode.
        columns: panels side by side.
        n: column with the number of images, shown in the tooltip where it exists.
        width: pixels of the plot or of each panel.
        height: pixels of the plot or of each panel.

    Returns:
        A layered chart, or a facet chart with ``facet``.
    """
    low, high = _interval_columns(frame, low, high)
    data = _prepare(frame, [x, y, low, high, series, facet, n], y, low, high, y_format)
    ordinal = x_scale == "ordinal" or not frame.schema[x].is_numeric()
    axis: dict[str, Any] = {"labelAngle": 0} if not ordinal or _short(frame[x]) else {"labelAngle": -35}
    if x_format is not None:
        axis["format"] = x_format
    x_channel: Any = alt.X(
        field=x,
        type="ordinal" if ordinal else "quantitative",
        title=x_title or _words(x),
        axis=alt.Axis(**axis),
        sort=None if ordinal else alt.Undefined,
        scale=alt.Undefined
        if ordinal
        else alt.Scale(type="log" if x_scale == "log" else "linear", zero=False, nice=False, padding=8),
    )
    look = _Look(frame, series)
    base = alt.Chart(_inline(data)).encode(x=x_channel)
    value = _value_channel(y, y_title, y_domain)
    tooltip = _tooltip(frame, series, [(x, x_title, x_format)], (y, y_title, y_format), low, n, facet)

    layers: list[alt.Chart] = []
    if low and high:
        layers += _bands(base, data, x, series, low, high, value, look)
    line = base.mark_line(strokeWidth=2, clip=True).encode(
        y=value, color=look.colour, strokeDash=look.dash, opacity=look.shown(1.0)
    )
    points = base.mark_point(filled=True, size=48, opacity=1).encode(
        y=value, color=look.colour, shape=look.shape, opacity=look.shown(1.0), tooltip=tooltip
    )
    layers += [line, points.properties(name="points").add_params(look.selection)]
    return _finish(layers, data, title, facet, columns, width, height, look)


def bars(
    frame: pl.DataFrame,
    x: str,
    y: str,
    low: str | None = None,
    high: str | None = None,
    series: str = "model",
    *,
    x_title: str | None = None,
    y_title: str | None = None,
    title: str | None = None,
    y_format: str = ".1f",
    y_domain: tuple[float, float] | None = None,
    facet: str | None = None,
    columns: int = 3,
    n: str = "n_images",
    width: int | None = None,
    height: int | None = None,
) -> alt.LayerChart | alt.FacetChart:
    """Draw grouped bars with error bars: one group per value of ``x``, one bar per series.

    Arguments as in :func:`curve`. ``x`` is categorical, in the order of its first appearance; ``series`` equal to
    ``x`` draws one bar per value.
    """
    low, high = _interval_columns(frame, low, high)
    data = _prepare(frame, [x, y, low, high, series, facet, n], y, low, high, y_format)
    look = _Look(frame, series)
    grouped = series != x
    groups, per_group = frame[x].n_unique(), len(look.names) if grouped else 1
    if width is None:
        width = min(900, max(_FACET_WIDTH if facet else 320, groups * (per_group * 16 + 14)))
    x_channel = alt.X(
        field=x,
        type="nominal",
        title=None if x == series else x_title or _words(x),
        sort=None,
        scale=alt.Scale(paddingInner=0.2, paddingOuter=0.1),
        axis=alt.Axis(labelAngle=0 if _short(frame[x], width) else -35),
    )
    base = alt.Chart(_inline(data)).encode(x=x_channel)
    if grouped:
        base = base.encode(xOffset=alt.XOffset(field=series, type="nominal", sort=look.names))
    value = _value_channel(y, y_title, y_domain, zero=True)
    tooltip = _tooltip(frame, series, [(x, x_title, None)] if grouped else [], (y, y_title, y_format), low, n, facet)
    body = base.mark_bar().encode(y=value, color=look.colour, opacity=look.shown(0.9), tooltip=tooltip)
    layers = [body.properties(name="bars").add_params(look.selection)]
    if low and high:
        whiskers = base.transform_filter(_present(low, high)).mark_rule(strokeWidth=1.3, color="#6e7681")
        layers.append(
            whiskers.encode(y=_end(low, value), y2=alt.Y2(field=high), opacity=look.shown(1.0), detail=_detail(series))
        )
    return _finish(layers, data, title, facet, columns, width, height, look, legend=grouped)


def dots(
    frame: pl.DataFrame,
    x: str,
    y: str,
    low: str | None = None,
    high: str | None = None,
    series: str = "model",
    *,
    x_title: str | None = None,
    y_title: str | None = None,
    title: str | None = None,
    x_format: str = ".1f",
    x_domain: tuple[float, float] | None = None,
    facet: str | None = None,
    columns: int = 3,
    n: str = "n_images",
    width: int | None = None,
    height: int | None = None,
) -> alt.LayerChart | alt.FacetChart:
    """Draw values along a horizontal axis, one row per value of ``y`` (models or classes), with error bars.

    Arguments as in :func:`curve`, turned by 90 degrees: ``x``, ``low`` and ``high`` are the measured value and its
    interval, ``y`` names the rows, in the order of their first appearance.
    """
    low, high = _interval_columns(frame, low, high)
    data = _prepare(frame, [x, y, low, high, series, facet, n], x, low, high, x_format)
    look = _Look(frame, series)
    grouped = series != y
    value = alt.X(
        field=x,
        type="quantitative",
        title=x_title or _words(x),
        axis=alt.Axis(grid=True),
        scale=alt.Scale(zero=False, padding=10) if x_domain is None else alt.Scale(domain=list(x_domain)),
    )
    rows = alt.Y(
        field=y,
        type="nominal",
        sort=None,
        title=None if y == series else y_title or _words(y),
        axis=alt.Axis(grid=True, gridDash=[1, 3]),
    )
    base = alt.Chart(_inline(data)).encode(y=rows)
    if grouped:
        base = base.encode(yOffset=alt.YOffset(field=series, type="nominal", sort=look.names))
    tooltip = _tooltip(frame, series, [(y, y_title, None)] if grouped else [], (x, x_title, x_format), low, n, facet)
    layers: list[alt.Chart] = []
    if low and high:
        whiskers = base.transform_filter(_present(low, high)).mark_rule(strokeWidth=1.8)
        layers.append(
            whiskers.encode(x=_end(low, value), x2=alt.X2(field=high), color=look.colour, opacity=look.shown(0.8))
        )
    points = base.mark_point(filled=True, size=64, opacity=1).encode(
        x=value, color=look.colour, shape=look.shape, opacity=look.shown(1.0), tooltip=tooltip
    )
    layers.append(points.properties(name="points").add_params(look.selection))
    if height is None:
        height = max(60, frame[y].n_unique() * (10 + 9 * len(look.names) if grouped else 24))
    return _finish(layers, data, title, facet, columns, width, height, look, legend=grouped)


class _Look:
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
        return alt.when(self.selection).then(alt.value(opacity)).otherwise(alt.value(0))

    def legend_columns(self, width: int) -> int:
        longest = max((len(name) for name in self.names), default=1)
        return max(1, min(len(self.names), int(width // (longest * _CHARACTER + 36))))


def _bands(
    base: alt.Chart,
    data: pl.DataFrame,
    x: str,
    series: str,
    low: str,
    high: str,
    value: alt.Y,
    look: _Look,
) -> list[alt.Chart]:
    """Confidence bands, and error bars for series whose only x value gives a band no width."""
    present = base.transform_filter(_present(low, high))
    ends = {"y": _end(low, value), "y2": alt.Y2(field=high), "color": look.colour}
    if data[x].n_unique() <= 1:
        return [present.mark_rule(strokeWidth=1.8).encode(**ends, opacity=look.shown(0.8))]
    return [present.mark_area(clip=True, fillOpacity=0.16).encode(**ends, opacity=look.shown(1.0))]


def _finish(
    layers: list[alt.Chart],
    data: pl.DataFrame,
    title: str | None,
    facet: str | None,
    columns: int,
    width: int | None,
    height: int | None,
    look: _Look,
    legend: bool = True,
) -> alt.LayerChart | alt.FacetChart:
    width = width or (_FACET_WIDTH if facet else WIDTH)
    chart: Any = alt.layer(*layers).properties(width=width, height=height or (_FACET_HEIGHT if facet else HEIGHT))
    across = 1
    if facet is not None:
        panels = data[facet].unique(maintain_order=True).to_list()
        columns = min(columns, len(panels))
        across = columns
        chart = chart.facet(facet=alt.Facet(field=facet, type="nominal", sort=panels, title=None), columns=columns)
        chart = chart.properties(data=_inline(data))
    if title is not None:
        chart = chart.properties(title=title)
    config = theme()
    config["legend"] |= {"orient": "bottom", "columns": look.legend_columns(width * across + 40)}
    config["legend"]["disable"] = not legend or len(look.names) < 2
    return chart.configure(**config)


def _prepare(
    frame: pl.DataFrame, wanted: Sequence[str | None], value: str, low: str | None, high: str | None, number: str
) -> pl.DataFrame:
    """The columns a chart uses, non-finite numbers as null, plus a text column with the interval for tooltips."""
    names = list(dict.fromkeys(name for name in wanted if name is not None and name in frame.columns))
    data = frame.select(names).with_columns(
        pl.when(pl.col(name).is_finite()).then(pl.col(name)).alias(name)
        for name in names
        if frame.schema[name].is_float()
    )
    if low and high:
        digits = _digits(number)
        factor = 100 if number.endswith("%") else 1
        ends = [(pl.col(end) * factor).round(digits).cast(pl.String) for end in (low, high)]
        data = data.with_columns(pl.concat_str([ends[0], pl.lit(" to "), ends[1]]).alias("interval"))
    return data.filter(pl.col(value).is_not_null())


def _inline(data: pl.DataFrame) -> alt.InlineData:
    return alt.InlineData(values=data.to_dicts())


def _interval_columns(frame: pl.DataFrame, low: str | None, high: str | None) -> tuple[str | None, str | None]:
    """Both ends, or neither where one is missing or empty."""
    for end in (low, high):
        if end is None or end not in frame.columns or frame[end].null_count() == frame.height:
            return None, None
    return low, high


def _value_channel(y: str, title: str | None, domain: tuple[float, float] | None, zero: bool = False) -> alt.Y:
    scale = alt.Scale(zero=zero, nice=True) if domain is None else alt.Scale(domain=list(domain))
    return alt.Y(field=y, type="quantitative", title=title or _words(y), scale=scale)


def _end(low: str, like: Any) -> Any:
    """The same channel for the low end of the interval: title and scale as the value's."""
    copied = like.copy(deep=True)
    copied["field"] = low
    return copied


def _present(low: str, high: str) -> str:
    return f"isValid(datum[{low!r}]) && isValid(datum[{high!r}])"


def _detail(series: str) -> alt.Detail:
    return alt.Detail(field=series, type="nominal")


def _tooltip(
    frame: pl.DataFrame,
    series: str,
    places: list[tuple[str, str | None, str | None]],
    value: tuple[str, str | None, str],
    low: str | None,
    n: str,
    facet: str | None,
) -> list[alt.Tooltip]:
    tips = [alt.Tooltip(field=series, type="nominal", title=_words(series))]
    if facet is not None and facet not in (series, places[0][0] if places else None):
        tips.append(alt.Tooltip(field=facet, type="nominal", title=_words(facet)))
    for name, title, number in places:
        kind = "quantitative" if frame.schema[name].is_numeric() else "nominal"
        tips.append(alt.Tooltip(field=name, type=kind, title=title or _words(name), format=number or alt.Undefined))
    name, title, number = value
    tips.append(alt.Tooltip(field=name, type="quantitative", title=title or _words(name), format=number))
    if low is not None:
        tips.append(alt.Tooltip(field="interval", type="nominal", title="95 % interval"))
    if n in frame.columns:
        tips.append(alt.Tooltip(field=n, type="quantitative", title="images", format=",d"))
    return tips


def _words(column: str) -> str:
    return column.replace("_", " ")


def _digits(number: str) -> int:
    """Decimals of a d3 format such as ``.1f`` or ``.0%``; 2 where it does not say."""
    digits = "".join(c for c in number.partition(".")[2] if c.isdigit())
    return int(digits) if digits else 2


def _short(values: pl.Series, width: int = WIDTH) -> bool:
    """Whether the labels of an axis of ``width`` pixels fit side by side."""
    labels = [str(value) for value in values.unique().to_list()]
    return len(labels) * (max(map(len, labels), default=0) * _CHARACTER + 8) <= width
