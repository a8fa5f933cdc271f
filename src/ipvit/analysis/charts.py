"""The charts every experiment draws: curves, bars and dots with confidence intervals, in one house style."""

from __future__ import annotations

from typing import Any, Literal

import altair as alt
import polars as pl

from ipvit.analysis.chart_parts import (
    FACET_WIDTH,
    WIDTH,
    Look,
    bands,
    end_like,
    finish,
    fits,
    inline,
    interval_columns,
    numeric_scale,
    prepare,
    present,
    theme,
    tooltips,
    value_channel,
    words,
)

__all__ = ["bars", "curve", "dots", "theme"]

Scale = Literal["linear", "log", "ordinal"]

Figure = alt.LayerChart | alt.FacetChart
"""What an experiment draws."""


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
) -> Figure:
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
    low, high = interval_columns(frame, low, high)
    data = prepare(frame, [x, y, low, high, series, facet, n], series, y, low, high, y_format)
    ordinal = x_scale == "ordinal" or not frame.schema[x].is_numeric()
    axis: dict[str, Any] = {"labelAngle": 0} if not ordinal or fits(frame[x]) else {"labelAngle": -35}
    if x_format is not None:
        axis["format"] = x_format
    x_channel: Any = alt.X(
        field=x,
        type="ordinal" if ordinal else "quantitative",
        title=x_title or words(x),
        axis=alt.Axis(**axis),
        sort=None if ordinal else alt.Undefined,
        scale=alt.Undefined
        if ordinal
        else alt.Scale(type="log" if x_scale == "log" else "linear", zero=False, nice=False, padding=8),
    )
    look = Look(frame, series)
    base = alt.Chart(inline(data)).encode(x=x_channel)
    value = value_channel(y, y_title, y_domain)
    tooltip = tooltips(frame, series, [(x, x_title, x_format)], (y, y_title, y_format), low, n, facet)

    layers: list[alt.Chart] = []
    if low and high:
        layers += bands(base, data, x, series, low, high, value, look)
    line = base.mark_line(strokeWidth=2, clip=True).encode(
        y=value, color=look.colour, strokeDash=look.dash, opacity=look.shown(1.0)
    )
    points = base.mark_point(filled=True, size=48, opacity=1).encode(
        y=value, color=look.colour, shape=look.shape, opacity=look.shown(1.0), tooltip=tooltip
    )
    layers += [line, points]
    return finish(layers, data, title, facet, columns, width, height, look)


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
) -> Figure:
    """Draw grouped bars with error bars: one group per value of ``x``, one bar per series.

    Arguments as in :func:`curve`. ``x`` is categorical, in the order of its first appearance; ``series`` equal to
    ``x`` draws one bar per value.
    """
    low, high = interval_columns(frame, low, high)
    data = prepare(frame, [x, y, low, high, series, facet, n], series, y, low, high, y_format)
    look = Look(frame, series)
    grouped = series != x
    groups, per_group = frame[x].n_unique(), len(look.names) if grouped else 1
    if width is None:
        width = min(900, max(FACET_WIDTH if facet else 320, groups * (per_group * 16 + 14)))
    x_channel = alt.X(
        field=x,
        type="nominal",
        title=None if x == series else x_title or words(x),
        sort=None,
        scale=alt.Scale(paddingInner=0.2, paddingOuter=0.1),
        axis=alt.Axis(labelAngle=0 if fits(frame[x], width) else -35),
    )
    base = alt.Chart(inline(data)).encode(x=x_channel)
    if grouped:
        base = base.encode(xOffset=alt.XOffset(field=series, type="nominal", sort=look.names))
    value = value_channel(y, y_title, y_domain, zero=True)
    tooltip = tooltips(frame, series, [(x, x_title, None)] if grouped else [], (y, y_title, y_format), low, n, facet)
    body = base.mark_bar().encode(y=value, color=look.colour, opacity=look.shown(0.9), tooltip=tooltip)
    layers: list[alt.Chart] = [body]
    if low and high:
        whiskers = base.transform_filter(present(low, high)).mark_rule(strokeWidth=1.3, color="#6e7681")
        layers.append(
            whiskers.encode(
                y=end_like(low, value),
                y2=alt.Y2(field=high),
                opacity=look.shown(1.0),
                detail=alt.Detail(field=series, type="nominal"),
            )
        )
    return finish(layers, data, title, facet, columns, width, height, look, legend=grouped)


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
) -> Figure:
    """Draw values along a horizontal axis, one row per value of ``y`` (models or classes), with error bars.

    Arguments as in :func:`curve`, turned by 90 degrees: ``x``, ``low`` and ``high`` are the measured value and its
    interval, ``y`` names the rows, in the order of their first appearance. Where ``y`` is a number there are no rows to
    name: every point stands at its (x, y), and the interval is that of ``y``.
    """
    if frame.schema[y].is_numeric():
        return _scatter(
            frame,
            x,
            y,
            low,
            high,
            series,
            x_title,
            y_title,
            title,
            x_format,
            x_domain,
            facet,
            columns,
            n,
            width,
            height,
        )
    low, high = interval_columns(frame, low, high)
    data = prepare(frame, [x, y, low, high, series, facet, n], series, x, low, high, x_format)
    look = Look(frame, series)
    grouped = series != y
    value = alt.X(
        field=x,
        type="quantitative",
        title=x_title or words(x),
        axis=alt.Axis(grid=True),
        scale=numeric_scale(x_domain, padding=10),
    )
    rows = alt.Y(
        field=y,
        type="nominal",
        sort=None,
        title=None if y == series else y_title or words(y),
        axis=alt.Axis(grid=True, gridDash=[1, 3]),
    )
    base = alt.Chart(inline(data)).encode(y=rows)
    if grouped:
        base = base.encode(yOffset=alt.YOffset(field=series, type="nominal", sort=look.names))
    tooltip = tooltips(frame, series, [(y, y_title, None)] if grouped else [], (x, x_title, x_format), low, n, facet)
    layers: list[alt.Chart] = []
    if low and high:
        whiskers = base.transform_filter(present(low, high)).mark_rule(strokeWidth=1.8)
        layers.append(
            whiskers.encode(x=end_like(low, value), x2=alt.X2(field=high), color=look.colour, opacity=look.shown(0.8))
        )
    points = base.mark_point(filled=True, size=64, opacity=1).encode(
        x=value, color=look.colour, shape=look.shape, opacity=look.shown(1.0), tooltip=tooltip
    )
    layers.append(points)
    if height is None:
        height = max(60, frame[y].n_unique() * (10 + 9 * len(look.names) if grouped else 24))
    return finish(layers, data, title, facet, columns, width, height, look, legend=grouped)


def estimates(
    frame: pl.DataFrame, measure: str, rows: str = "model", series: str | None = None, **options: Any
) -> Figure:
    """Draw a measure with its interval, ``MEASURE_low`` to ``MEASURE_high``, one row per value of ``rows``.

    Other arguments as in :func:`dots`; every row is a series, unless ``series`` says otherwise.
    """
    return dots(frame, measure, rows, f"{measure}_low", f"{measure}_high", series or rows, **options)


def _scatter(
    frame: pl.DataFrame,
    x: str,
    y: str,
    low: str | None,
    high: str | None,
    series: str,
    x_title: str | None,
    y_title: str | None,
    title: str | None,
    number: str,
    x_domain: tuple[float, float] | None,
    facet: str | None,
    columns: int,
    n: str,
    width: int | None,
    height: int | None,
) -> Figure:
    """Points at (x, y), with vertical error bars."""
    low, high = interval_columns(frame, low, high)
    data = prepare(frame, [x, y, low, high, series, facet, n], series, y, low, high, number)
    look = Look(frame, series)
    numeric = frame.schema[x].is_numeric()
    place = alt.X(
        field=x,
        type="quantitative" if numeric else "nominal",
        title=x_title or words(x),
        sort=alt.Undefined if numeric else None,
        axis=alt.Axis(labelAngle=0 if numeric or fits(frame[x], width or WIDTH) else -35),
        scale=numeric_scale(x_domain, padding=10) if numeric else alt.Undefined,
    )
    value = value_channel(y, y_title, None)
    base = alt.Chart(inline(data)).encode(x=place)
    layers: list[alt.Chart] = []
    if low and high:
        whiskers = base.transform_filter(present(low, high)).mark_rule(strokeWidth=1.5)
        layers.append(
            whiskers.encode(y=end_like(low, value), y2=alt.Y2(field=high), color=look.colour, opacity=look.shown(0.8))
        )
    tooltip = tooltips(frame, series, [(x, x_title, None)], (y, y_title, number), low, n, facet)
    points = base.mark_point(filled=True, size=44).encode(
        y=value, color=look.colour, shape=look.shape, opacity=look.shown(0.85), tooltip=tooltip
    )
    layers.append(points)
    return finish(layers, data, title, facet, columns, width, height, look)
