"""Rows and columns of small maps, such as attention per block and head, in the paper's orange."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np
import polars as pl
from PIL import Image

from ipvit.analysis.chart_parts import Figure, inline, theme

_STOPS = np.array([[255, 245, 235], [253, 190, 133], [241, 105, 19], [166, 54, 3], [90, 28, 2]], dtype=float)
_MARK = np.array([0, 92, 230], dtype=float)
_SIDE = 56  # pixels of a drawn map


def mosaic(
    maps: list[tuple[str, str, np.ndarray]],
    *,
    title: str,
    row_title: str,
    column_title: str,
    marks: Sequence[np.ndarray | None] | None = None,
    mark_title: str = "",
) -> Figure:
    """Draw maps in a table of rows and columns, each scaled to its own maximum, with a scale of the colours.

    Args:
        maps: row label, column label and a two-dimensional non-negative array for every map.
        title: above the chart.
        row_title: what the rows are.
        column_title: what the columns are.
        marks: for every map, how strongly each of its cells is marked, from 0 (not at all) to 1; None for no marks.
        mark_title: what the marks are; said below the title where there are any.
    """
    marks = marks or [None] * len(maps)
    marked = any(mark is not None and (mark > 0).any() for mark in marks)
    frame = pl.DataFrame(
        {
            "row": [m[0] for m in maps],
            "column": [m[1] for m in maps],
            "url": [_picture(m[2], mark) for m, mark in zip(maps, marks, strict=True)],
            "largest": [float(m[2].max()) for m in maps],
            "share": [0.0 for _ in maps],
        }
    )
    rows, columns = (frame[name].unique(maintain_order=True).to_list() for name in ("row", "column"))
    base = alt.Chart(inline(frame)).encode(
        x=alt.X(
            "column:N",
            sort=columns,
            title=column_title,
            axis=alt.Axis(orient="top", labelAngle=0, domain=False, ticks=False),
        ),
        y=alt.Y("row:N", sort=rows, title=row_title, axis=alt.Axis(domain=False, ticks=False)),
    )
    pictures = base.mark_image(width=_SIDE - 4, height=_SIDE - 4).encode(url="url:N")
    colours = ["#" + "".join(f"{int(part):02X}" for part in stop) for stop in _STOPS]
    scale = alt.Color(
        "share:Q",
        scale=alt.Scale(domain=[i / (len(colours) - 1) for i in range(len(colours))], range=colours),
        legend=alt.Legend(
            title="share of each map's largest value",
            orient="bottom",
            direction="horizontal",
            format=".0%",
            gradientLength=min(180, max(100, _SIDE * len(columns))),
            gradientThickness=10,
            titleFontWeight="normal",
            titleLimit=0,
            values=[0, 0.5, 1],
        ),
    )
    tips = [
        alt.Tooltip("row:N", title=row_title or "row"),
        alt.Tooltip("column:N", title=column_title or "column"),
        alt.Tooltip("largest:Q", title="largest value", format=".3g"),
    ]
    points = base.mark_point(size=400, opacity=0, filled=True).encode(color=scale, tooltip=tips)
    chart: Any = alt.layer(pictures, points)  # Altair's own methods give it no full type
    heading = alt.TitleParams(title, subtitle=f"blue: {mark_title}") if marked else title
    chart = chart.properties(title=heading, width=_SIDE * len(columns), height=_SIDE * len(rows))
    return chart.configure(**theme())


def _picture(values: np.ndarray, marks: np.ndarray | None = None) -> str:
    scaled = np.clip(values / max(float(values.max()), 1e-12), 0, 1) * (len(_STOPS) - 1)
    low = np.minimum(scaled.astype(int), len(_STOPS) - 2)
    share = (scaled - low)[..., None]
    colours = ((1 - share) * _STOPS[low] + share * _STOPS[low + 1]).round().astype(np.uint8)
    factor = max(1, round(112 / values.shape[0]))  # enlarged without smoothing: a cell is a square, not a blur
    pixels = colours.repeat(factor, axis=0).repeat(factor, axis=1)
    if marks is not None:
        margin = factor // 4
        for row, column in np.argwhere(marks > 0):
            strength = 0.4 + 0.6 * float(marks[row, column])  # a mark of one image among many can still be seen
            top, left = row * factor + margin, column * factor + margin
            cell = pixels[top : (row + 1) * factor - margin, left : (column + 1) * factor - margin]
            cell[:] = ((1 - strength) * cell + strength * _MARK).round().astype(np.uint8)
    picture = Image.fromarray(pixels).quantize(64)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
