"""One row per category, one mark per model, and a line where each model stands on the whole (figure 6)."""

from __future__ import annotations

import altair as alt
import polars as pl

from ipvit.analysis.chart_parts import Look, finish, inline, prepare
from ipvit.analysis.charts import Figure

_ROW = 24  # pixels between two categories


def category_chart(categories: pl.DataFrame, overall: pl.DataFrame, *, x: str, rows: str, title: str) -> Figure:
    """Draw shares of categories.

    Args:
        categories: one row per ``series`` and category.
        overall: one row per ``series``.
        x: column with a share in [0, 1], in both tables; in ``categories`` with its interval beside it.
        rows: column that names the categories.
        title: above the chart.
    """
    low, high = f"{x}_low", f"{x}_high"
    data = prepare(categories, [x, rows, low, high, "series", "n_images"], "series", x, low, high, ".2f")
    whole = overall.select("series", x, low, high).filter(pl.col(x).is_not_null())
    look = Look(overall, "series")
    place = alt.X(
        field=x,
        type="quantitative",
        title="Share of decisions for shape (0: texture always decides, 1: shape always decides)",
        scale=alt.Scale(domain=[0, 1]),
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
                alt.Tooltip(field="series", type="nominal", title="model"),
                alt.Tooltip(field=x, type="quantitative", title="shape bias, all images", format=".3f"),
            ],
        )
    )
    points = (
        alt.Chart(inline(data))
        .mark_point(filled=True, size=60, stroke="white", strokeWidth=0.7)
        .encode(
            x=place,
            y=alt.Y(field=rows, type="nominal", sort=None, title=None, axis=alt.Axis(grid=True, gridDash=[1, 3])),
            yOffset=alt.YOffset(field="series", type="nominal", sort=look.names),  # equal shares side by side
            color=look.colour,
            shape=look.shape,
            opacity=look.shown(0.9),
            tooltip=[
                alt.Tooltip(field="series", type="nominal", title="model"),
                alt.Tooltip(field=rows, type="nominal"),
                alt.Tooltip(field=x, type="quantitative", title="shape bias", format=".2f"),
                alt.Tooltip(field="interval", type="nominal", title="95 % interval"),
                alt.Tooltip(field="n_images", type="quantitative", title="images", format=",d"),
            ],
        )
    )
    layers = [lines, points.properties(name="points").add_params(look.selection)]
    height = _ROW * max(2, data[rows].n_unique())
    return finish(layers, data, title, None, 1, None, height, look)
