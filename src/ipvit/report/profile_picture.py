"""The picture of a profile: a panel for each question, in it a point with its interval for each model."""

from __future__ import annotations

from typing import Any

import altair as alt
import polars as pl

from ipvit.analysis.chart_parts import inline, theme
from ipvit.analysis.looks import current_looks
from ipvit.report.figures import without_nan
from ipvit.report.profile import Column, Profile

_ACROSS = 4  # panels side by side
_WIDTH, _ROW = 128, 19  # pixels of a panel, and of a row in it
_TITLE = alt.TitleParams(["Profile: one number for each question, with its 95 % interval"])
_NAMES = 20  # characters of a title's line


def draw(profile: Profile) -> dict[str, Any]:
    """Return the picture of a profile as a Vega-Lite specification, as wide as a page of a paper.

    The models stand in the same rows of every panel; networks of the paper have hollow grey points and no interval.
    Every panel goes from nothing to all, and as far beyond as the intervals do: a small difference looks small in each.
    """
    networks = list(dict.fromkeys(near.network for column in profile.columns for near in column.neighbours))
    rows = [*profile.models, *(f"{network} (paper)" for network in networks)]
    panels = [_panel(column, rows, profile, first=place % _ACROSS == 0) for place, column in enumerate(profile.columns)]
    lines = [panels[start : start + _ACROSS] for start in range(0, len(panels), _ACROSS)]
    settings = theme()
    settings["legend"] |= {"disable": True}
    frame = alt.vconcat(*([alt.hconcat(alt.Chart().mark_point(), spacing=14)] * len(lines)), spacing=16)
    return _filled(frame.properties(title=_TITLE).configure(**settings).to_dict(), lines)


def _filled(frame: dict[str, Any], lines: list[list[Any]]) -> dict[str, Any]:
    """Put panels into an empty frame of lines: Altair would copy every panel at every step, ten times in all."""
    rows: dict[str, Any] = {}
    for line, panels in zip(frame["vconcat"], lines, strict=True):
        line["hconcat"] = [panel.to_dict() for panel in panels]
        for panel in line["hconcat"]:
            rows |= panel.pop("datasets", {})
            del panel["$schema"], panel["config"]
    return without_nan(frame | {"datasets": rows})


def _panel(column: Column, rows: list[str], profile: Profile, *, first: bool) -> Any:
    question = column.question
    points = [
        {
            "model": score.model,
            "value": score.value,
            "low": score.low,
            "high": score.high,
            "rank": column.rank(score.model),
            "n": score.n_images,
            "kind": "measured",
        }
        for score in question.scores
    ]
    points += [{"model": f"{near.network} (paper)", "value": near.value, "kind": "paper"} for near in column.neighbours]
    schema = {"model": pl.String, "value": pl.Float64, "low": pl.Float64, "high": pl.Float64}
    schema |= {"rank": pl.String, "n": pl.Int64, "kind": pl.String}
    frame = pl.DataFrame(points, schema=schema).with_columns(pl.col("value", "low", "high").fill_nan(None))
    low, high, ticks = _ends(frame, 100.0 if question.unit == "percent" else 1.0)
    scale = alt.Scale(domain=[low, high], nice=False)
    digits = f".{question.digits}f"
    x = alt.X("value:Q", title="%" if question.unit == "percent" else None, scale=scale, axis=alt.Axis(values=ticks))
    axis: Any = alt.Axis(grid=True, gridDash=[1, 3], domain=False, ticks=False, labels=first)
    y = alt.Y("model:N", sort=rows, title=None, scale=alt.Scale(domain=rows), axis=axis)
    looks = current_looks()
    colours = [looks.of(row).colour if row in profile.models else "#8C8C8C" for row in rows]
    shapes = [looks.of(row).shape if row in profile.models else "circle" for row in rows]
    colour = alt.Color("model:N", scale=alt.Scale(domain=rows, range=colours), legend=None)
    tips = [
        alt.Tooltip("model:N"),
        alt.Tooltip("value:Q", title=question.title, format=digits),
        alt.Tooltip("low:Q", format=digits),
        alt.Tooltip("high:Q", format=digits),
        alt.Tooltip("rank:N"),
        alt.Tooltip("n:Q", title="images", format=",d"),
    ]
    base = alt.Chart(inline(frame)).encode(y=y)
    known = base.transform_filter("isValid(datum.low) && isValid(datum.high)")
    rule = known.mark_rule(strokeWidth=1.6, clip=True).encode(x=alt.X("low:Q", scale=scale), x2="high:Q", color=colour)
    shape = alt.Shape("model:N", scale=alt.Scale(domain=rows, range=shapes), legend=None)
    drawn = base.transform_filter("isValid(datum.value)")
    ours = drawn.transform_filter("datum.kind == 'measured'").mark_point(filled=True, size=48, opacity=1)
    theirs = drawn.transform_filter("datum.kind == 'paper'").mark_point(filled=False, size=44, opacity=1)
    layers: Any = alt.layer(
        rule, *(points.encode(x=x, color=colour, shape=shape, tooltip=tips) for points in (ours, theirs))
    )
    title = alt.TitleParams(_lines(question.title), fontSize=11.5, fontWeight=600, offset=6, anchor="start")
    return layers.properties(width=_WIDTH, height=max(40, _ROW * len(rows)), title=title)


def _ends(frame: pl.DataFrame, whole: float) -> tuple[float, float, list[float]]:
    """Return the ends of a panel's scale, and where its axis has ticks."""
    numbers = [value for name in ("value", "low", "high") for value in frame[name].drop_nulls().to_list()]
    ticks = [0.0, whole / 2, whole]
    if min(numbers, default=0.0) < -whole / 2:
        ticks.insert(0, -whole)
    return min([*numbers, ticks[0]]), max([*numbers, whole]), ticks


def _lines(title: str) -> list[str]:
    """Break a panel's title into lines."""
    lines = [""]
    for word in title.split():
        if lines[-1] and len(lines[-1]) + len(word) + 1 > _NAMES:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    return lines
