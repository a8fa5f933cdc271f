"""The charts every experiment draws: curves, bars and dots with confidence intervals, in one house style."""

from __future__ import annotations

from typing import Any

import altair as alt
import polars as pl

from ipvit.analysis.chart_parts import (
    FACET_WIDTH,
    WIDTH,
    Encoding,
    Figure,
    Theme,
    bands,
    end_like,
    error_bars,
    finish,
    fits,
    inline,
    numeric_scale,
    prepare,
    present,
    theme,
    tooltips,
    value_channel,
)

__all__ = ["Encoding", "Figure", "bars", "curve", "dots", "theme"]


def curve(
    frame: pl.DataFrame,
    encoding: Encoding,
    *,
    title: str | None = None,
    width: int | None = None,
    height: int | None = None,
    columns: int = 3,
) -> Figure:
    """Draw one line per series with points and a confidence band.

    A click on a name in the legend hides or shows that series. Where a series has a single x value, an error bar
    stands for the band. Text on the horizontal axis is drawn in the order of its first appearance.

    Args:
        frame: one row per point; NaN and null are gaps.
        encoding: the columns to draw.
        title: title above the chart.
        width: pixels of the plot or of each panel.
        height: pixels of the plot or of each panel.
        columns: panels side by side.

    Returns:
        A layered chart, or a facet chart where the encoding has a facet.
    """
    place, measured = encoding.horizontal, encoding.vertical
    drawn = prepare(frame, encoding, measured)
    look = Theme(frame, encoding.series, encoding.group)
    value = value_channel(measured)
    base = alt.Chart(inline(drawn.rows)).encode(x=_along(frame, encoding))
    line = base.mark_line(strokeWidth=2, clip=True).encode(
        y=value, color=look.colour, strokeDash=look.dash, opacity=look.shown(1.0)
    )
    points = base.mark_point(filled=True, size=48, opacity=1).encode(
        y=value,
        color=look.colour,
        shape=look.shape,
        opacity=look.shown(1.0),
        tooltip=tooltips(frame, encoding, place, measured, drawn.ends),
    )
    return finish(
        [*bands(base, drawn, encoding.x, value, look), line, points],
        drawn.rows,
        look,
        title=title,
        facet=encoding.facet,
        columns=columns,
        width=width,
        height=height,
    )


def _along(frame: pl.DataFrame, encoding: Encoding) -> alt.X:
    """The horizontal axis of a curve."""
    place = encoding.horizontal
    ordinal = encoding.x_scale == "ordinal" or not frame.schema[place.field].is_numeric()
    axis: dict[str, Any] = {"labelAngle": 0 if not ordinal or fits(frame[place.field]) else -35}
    if place.format is not None:
        axis["format"] = place.format
    if ordinal:
        return alt.X(field=place.field, type="ordinal", title=place.title, axis=alt.Axis(**axis), sort=None)
    scale = numeric_scale(place.domain, padding=8, type=encoding.x_scale)
    return alt.X(field=place.field, type="quantitative", title=place.title, axis=alt.Axis(**axis), scale=scale)


def bars(
    frame: pl.DataFrame,
    encoding: Encoding,
    *,
    title: str | None = None,
    width: int | None = None,
    height: int | None = None,
    columns: int = 3,
) -> Figure:
    """Draw grouped bars with error bars: one group per value of ``x``, one bar per series.

    Arguments as in :func:`curve`. ``x`` is categorical, in the order of its first appearance; ``series`` equal to
    ``x`` draws one bar per value.
    """
    x, series, facet = encoding.x, encoding.series, encoding.facet
    place, measured = encoding.horizontal, encoding.vertical
    drawn = prepare(frame, encoding, measured)
    look = Theme(frame, series, encoding.group, "bars")
    grouped = series != x
    groups, per_group = frame[x].n_unique(), len(look.names) if grouped else 1
    if width is None:
        width = min(900, max(FACET_WIDTH if facet else 320, groups * (per_group * 16 + 14)))
    x_channel = alt.X(
        field=x,
        type="nominal",
        title=place.title if grouped else None,
        sort=None,
        scale=alt.Scale(paddingInner=0.2, paddingOuter=0.1),
        axis=alt.Axis(labelAngle=0 if fits(frame[x], width) else -35),
    )
    base = alt.Chart(inline(drawn.rows)).encode(x=x_channel)
    if grouped:
        base = base.encode(xOffset=alt.XOffset(field=series, type="nominal", sort=look.names))
    value = value_channel(measured, zero=True)
    tooltip = tooltips(frame, encoding, place if grouped else None, measured, drawn.ends)
    layers = [base.mark_bar().encode(y=value, color=look.colour, opacity=look.shown(0.9), tooltip=tooltip)]
    if drawn.ends is not None:
        low, high = drawn.ends
        # grey: an error bar in the colour of its own bar would not show
        whiskers = base.transform_filter(present(low, high)).mark_rule(strokeWidth=1.3, color="#6e7681")
        layers.append(
            whiskers.encode(
                y=end_like(low, value),
                y2=alt.Y2(field=high),
                opacity=look.shown(1.0),
                detail=alt.Detail(field=series, type="nominal"),
            )
        )
    return finish(
        layers,
        drawn.rows,
        look,
        title=title,
        facet=facet,
        columns=columns,
        width=width,
        height=height,
        legend=grouped,
    )


def dots(
    frame: pl.DataFrame,
    encoding: Encoding,
    *,
    title: str | None = None,
    width: int | None = None,
    height: int | None = None,
    columns: int = 3,
) -> Figure:
    """Draw values along a horizontal axis, one row per value of ``y`` (models or classes), with error bars.

    Arguments as in :func:`curve`, turned by 90 degrees: ``x`` is the measured quantity, ``y`` names the rows, in the
    order of their first appearance. Where ``y`` is a number there are no rows to name: every point stands at its
    (x, y), and the interval is that of ``y``.
    """
    y, series = encoding.y, encoding.series
    if frame.schema[y].is_numeric():
        return _scatter(frame, encoding, title=title, width=width, height=height, columns=columns)
    place, measured = encoding.vertical, encoding.horizontal
    drawn = prepare(frame, encoding, measured)
    look = Theme(frame, series, encoding.group, "points")
    grouped = series != y
    value = alt.X(
        field=measured.field,
        type="quantitative",
        title=measured.title,
        axis=alt.Axis(grid=True),
        scale=numeric_scale(measured.domain, padding=10),
    )
    rows = alt.Y(
        field=y,
        type="nominal",
        sort=None,
        title=place.title if grouped else None,
        axis=alt.Axis(grid=True, gridDash=[1, 3]),
    )
    base = alt.Chart(inline(drawn.rows)).encode(y=rows)
    if grouped:
        base = base.encode(yOffset=alt.YOffset(field=series, type="nominal", sort=look.names))
    points = base.mark_point(filled=True, size=64, opacity=1).encode(
        x=value,
        color=look.colour,
        shape=look.shape,
        opacity=look.shown(1.0),
        tooltip=tooltips(frame, encoding, place if grouped else None, measured, drawn.ends),
    )
    return finish(
        [*error_bars(base, drawn.ends, value, look, 1.8), points],
        drawn.rows,
        look,
        title=title,
        facet=encoding.facet,
        columns=columns,
        width=width,
        height=height or max(60, frame[y].n_unique() * (10 + 9 * len(look.names) if grouped else 24)),
        legend=grouped,
    )


def _scatter(
    frame: pl.DataFrame,
    encoding: Encoding,
    *,
    title: str | None,
    width: int | None,
    height: int | None,
    columns: int,
) -> Figure:
    """Points at (x, y), with vertical error bars."""
    place, measured = encoding.horizontal, encoding.vertical
    drawn = prepare(frame, encoding, measured)
    look = Theme(frame, encoding.series, encoding.group, "points")
    numeric = frame.schema[place.field].is_numeric()
    x_channel = alt.X(
        field=place.field,
        type="quantitative" if numeric else "nominal",
        title=place.title,
        sort=alt.Undefined if numeric else None,
        axis=alt.Axis(labelAngle=0 if numeric or fits(frame[place.field], width or WIDTH) else -35),
        scale=numeric_scale(place.domain, padding=10) if numeric else alt.Undefined,
    )
    value = value_channel(measured)
    base = alt.Chart(inline(drawn.rows)).encode(x=x_channel)
    points = base.mark_point(filled=True, size=44).encode(
        y=value,
        color=look.colour,
        shape=look.shape,
        opacity=look.shown(0.85),
        tooltip=tooltips(frame, encoding, place, measured, drawn.ends),
    )
    return finish(
        [*error_bars(base, drawn.ends, value, look, 1.5), points],
        drawn.rows,
        look,
        title=title,
        facet=encoding.facet,
        columns=columns,
        width=width,
        height=height,
    )
