"""One row per category, one mark per model, and a line where each model stands on the whole (figure 6)."""

from __future__ import annotations

import altair as alt
import polars as pl

from ipvit.analysis.chart_parts import (
    VALUE_FORMAT,
    Encoding,
    Figure,
    Theme,
    finish,
    inline,
    numeric_scale,
    prepare,
    words,
)

_ROW = 24  # pixels between two categories


def category_chart(
    categories: pl.DataFrame, overall: pl.DataFrame, encoding: Encoding, *, title: str | None = None
) -> Figure:
    """Draw what is measured of categories, and of the whole.

    Args:
        categories: one row per series and category.
        overall: one row per series.
        encoding: the measured quantity, a column of both tables, as ``x``; the column that names the categories as
            ``y``; the series; no facet.
        title: title above the chart.
    """
    x, rows, series, measured = encoding.x, encoding.y, encoding.series, encoding.horizontal
    data = prepare(categories, encoding, measured).rows
    whole = overall.select(series, x, f"{x}_low", f"{x}_high").filter(pl.col(x).is_not_null())
    look = Theme(overall, series, marks="points")
    place = alt.X(
        field=x,
        type="quantitative",
        title=measured.title,
        scale=numeric_scale(measured.domain, padding=10),
        axis=alt.Axis(grid=True),
    )
    lines = (
        alt.Chart(inline(whole))
        .mark_rule(strokeWidth=2)
        .encode(
            x=place,
            color=look.colour,
            strokeDash=look.dash,
            opacity=look.shown(0.75),
            tooltip=[
                alt.Tooltip(field=series, type="nominal", title="model"),
                alt.Tooltip(field=x, type="quantitative", title=f"{words(x)}, all images", format=".3f"),
            ],
        )
    )
    points = (
        alt.Chart(inline(data))
        .mark_point(filled=True, size=60, stroke="white", strokeWidth=0.7)
        .encode(
            x=place,
            y=alt.Y(field=rows, type="nominal", sort=None, title=None, axis=alt.Axis(grid=True, gridDash=[1, 3])),
            yOffset=alt.YOffset(field=series, type="nominal", sort=look.names),  # equal shares side by side
            color=look.colour,
            shape=look.shape,
            opacity=look.shown(0.9),
            tooltip=[
                alt.Tooltip(field=series, type="nominal", title="model"),
                alt.Tooltip(field=rows, type="nominal"),
                alt.Tooltip(field=x, type="quantitative", title=words(x), format=measured.format or VALUE_FORMAT),
                alt.Tooltip(field="interval", type="nominal", title="95 % interval"),
                alt.Tooltip(field=encoding.n, type="quantitative", title="images", format=",d"),
            ],
        )
    )
    layers = [lines, points.properties(name="points").add_params(look.selection)]
    height = _ROW * max(2, data[rows].n_unique())
    return finish(layers, data, look, title=title, height=height)
