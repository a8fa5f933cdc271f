"""The figure of natural shifts: accuracy over clean accuracy, both as logits, the published networks behind ours."""

from __future__ import annotations

from typing import Any

import altair as alt
import numpy as np
import polars as pl

from ipvit.analysis.chart_parts import Figure, Theme, error_bars, finish, inline
from ipvit.experiments.shift.lines import line, logits
from ipvit.metrics.effective_robustness import accuracy_logit
from ipvit.models.published.shifts import SETS

_TICKS = (0.5, 1, 2, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 98, 99)
_OTHERS = {False: ("triangle-up", 22, "#b58863"), True: ("circle", 12, "#8C8C8C")}
"""Shape, size and colour of timm's networks that saw further images, and of those that saw ImageNet-1k alone."""
_LINE = "#7c3aed"
"""Colour of their line: like these it is seen on light and on dark pages, and no model has it."""

_SCHEMA = {"clean": pl.Float64, "top1": pl.Float64, "alone": pl.Boolean}


def draw(table: pl.DataFrame) -> dict[str, Figure]:
    """Return one figure for each set, ``shift-SET``."""
    found: dict[str, Figure] = {}
    for (name,), rows in table.group_by(["set"], maintain_order=True):
        found[f"shift-{str(name).replace('/', '-')}"] = _figure(str(name), rows)
    return found


def _figure(name: str, rows: pl.DataFrame) -> Figure:
    ends = ("", "_low", "_high")
    ours = rows.select("model", *(_logit(f"{what}{end}") for what in ("clean", "top1") for end in ends), "n_shifted")
    whole = name in SETS and rows["effective"].null_count() < rows.height
    theirs = _published(name) if whole else pl.DataFrame(schema=_SCHEMA)
    look = Theme(ours, "model", marks="points")
    x, y = (
        _axis(column, title, [ours, theirs])
        for column, title in (("clean", "Clean accuracy"), ("top1", f"Accuracy on {name}"))
    )
    base = alt.Chart(inline(ours)).encode(x=x, y=y)
    points = base.mark_point(filled=True, size=70, opacity=1).encode(color=look.colour, shape=look.shape)
    bars = [
        *error_bars(base, ("top1_low", "top1_high"), y, look, 1.5),
        *error_bars(base, ("clean_low", "clean_high"), x, look, 1.5),
    ]
    behind = [*_cloud(theirs, x, y), _line(name, theirs, x, y)] if theirs.height else [_diagonal(ours, x, y)]
    said = "grey dots: timm's networks that saw ImageNet-1k alone, and their line; brown triangles: others"
    title = alt.TitleParams(f"{name} over clean accuracy", subtitle=said if theirs.height else "dashed: no drop")
    # the legend listens to the first layer; what is last lies on top
    return finish([points, *behind, *bars, points], ours, look, title=title, width=440, height=360)


def _logit(column: str) -> pl.Expr:
    """Return percentages as logits, held away from 0 and 100."""
    share = (pl.col(column) / 100).clip(1e-4, 1 - 1e-4)
    return (share / (1 - share)).log().alias(column)


def _published(name: str) -> pl.DataFrame:
    frames: list[pl.DataFrame] = []
    for alone in _OTHERS:
        clean, shifted = logits(name, in1k=alone)
        frames.append(pl.DataFrame({"clean": clean, "top1": shifted}).with_columns(pl.lit(alone).alias("alone")))
    return pl.concat(frames)


def _axis(column: str, title: str, frames: list[pl.DataFrame]) -> Any:
    """Return an axis of logits that is labelled with percentages."""
    values = np.concatenate(
        [frame[name].drop_nulls().to_numpy() for frame in frames for name in frame.columns if name.startswith(column)]
    )
    low, high = float(values.min()) - 0.3, float(values.max()) + 0.3
    ticks = [float(accuracy_logit(1e6 * tick / 100, 1e6)) for tick in _TICKS]
    axis = alt.Axis(
        values=[tick for tick in ticks if low <= tick <= high],
        labelExpr="format(100 / (1 + exp(-datum.value)), datum.value < -4.7 ? '.1f' : '.0f')",
    )
    kind = alt.X if column == "clean" else alt.Y
    return kind(
        field=column,
        type="quantitative",
        title=f"{title} (%)",
        scale=alt.Scale(domain=[low, high], nice=False),
        axis=axis,
    )


def _cloud(theirs: pl.DataFrame, x: Any, y: Any) -> list[alt.Chart]:
    return [
        alt.Chart(inline(theirs.filter(pl.col("alone") == alone)))
        .mark_point(filled=True, shape=shape, size=size, opacity=0.7, color=colour)
        .encode(x=x, y=y)
        for alone, (shape, size, colour) in _OTHERS.items()
    ]


def _line(name: str, theirs: pl.DataFrame, x: Any, y: Any) -> alt.Chart:
    fitted = line(name)
    span = np.array([theirs["clean"].min(), theirs["clean"].max()])
    rows = pl.DataFrame({"clean": span, "top1": fitted.intercept + fitted.slope * span})
    return alt.Chart(inline(rows)).mark_line(color=_LINE, strokeWidth=1.5, clip=True).encode(x=x, y=y)


def _diagonal(ours: pl.DataFrame, x: Any, y: Any) -> alt.Chart:
    span = [ours["clean"].min(), ours["clean"].max()]
    rows = pl.DataFrame({"clean": span, "top1": span})
    return alt.Chart(inline(rows)).mark_line(color="#57606a", strokeDash=[3, 3], clip=True).encode(x=x, y=y)
