"""Figures of calibration: reliability, confidence beside accuracy under a perturbation, risk against coverage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import altair as alt
import polars as pl

from ipvit.analysis import charts
from ipvit.verdicts.calibration import FILE

if TYPE_CHECKING:
    from ipvit.analysis.base import Analysis
    from ipvit.analysis.charts import Figure
    from ipvit.results import Run
    from ipvit.verdicts.calibration import Calibration


def figures(found: Calibration, run: Run) -> dict[str, Figure]:
    """Return the figures by name."""
    made: dict[str, Figure] = {}
    if (bins := found.tables.get(f"{FILE}-reliability")) is not None:
        made[f"{FILE}-reliability"] = _reliability(bins)
    for name, level in found.levels.items():
        rows = found.tables[FILE].filter(pl.col("experiment") == name, pl.col("level").is_not_null())
        if rows["level"].n_unique() > 1:
            made[f"{FILE}-{name}"] = _along(rows, run.analyses[name], level)
    if (risks := found.tables.get(f"{FILE}-risk")) is not None:
        made[f"{FILE}-risk"] = _risk(risks)
    return made


def _reliability(bins: pl.DataFrame) -> Any:
    encoding = charts.Encoding(
        x="confidence",
        y="accuracy",
        x_title="Confidence",
        y_title="Share of right answers",
        x_domain=(0, 1),
        y_domain=(0, 1),
    )
    chart = charts.curve(bins, encoding, title="Reliability on clean images", width=360, height=360)
    return chart + _diagonal()


def _diagonal() -> alt.Chart:
    """The line on which confidence is the share of right answers."""
    ends = alt.InlineData(values=[{"x": 0, "y": 0}, {"x": 1, "y": 1}])
    return (
        alt.Chart(ends)
        .mark_line(color="#8c959f", strokeWidth=1, strokeDash=[2, 3])
        .encode(x=alt.X(field="x", type="quantitative"), y=alt.Y(field="y", type="quantitative"))
    )


def _along(rows: pl.DataFrame, analysis: Analysis, level: str) -> Any:
    """Return how confident and how right models are along the levels of an experiment."""
    column = analysis.columns[level]
    panel = pl.concat_str("model", pl.col("setting").replace("", None), separator=", ", ignore_nulls=True)
    parts = [
        rows.select("level", "n_images", panel.alias("panel"), value.alias("share"), pl.lit(what).alias("what"))
        for what, value in (("mean confidence", pl.col("confidence")), ("accuracy", pl.col("top1") / 100))
    ]
    encoding = charts.Encoding(
        x="level",
        y="share",
        series="what",
        facet="panel",
        x_title=column.head(level).capitalize(),
        y_title="Share",
        x_format=".0%" if column.unit == "share" else None,
        y_format=".0%",
        y_domain=(0, 1),
        interval=False,
    )
    return charts.curve(pl.concat(parts), encoding, title=f"{analysis.title}: confidence and accuracy")


def _risk(risks: pl.DataFrame) -> Any:
    encoding = charts.Encoding(
        x="coverage",
        y="risk",
        x_title="Share of images that are answered, the most confident ones",
        y_title="Share of wrong answers among them",
        x_format=".0%",
        y_format=".0%",
        x_domain=(0, 1),
        interval=False,
    )
    return charts.curve(risks, encoding, title="Risk against coverage on clean images")
