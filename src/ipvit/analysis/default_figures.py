"""The chart of an experiment that draws none of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from ipvit.analysis import charts
from ipvit.analysis.columns import PLAIN
from ipvit.analysis.record_columns import RESERVED

if TYPE_CHECKING:
    from ipvit.analysis.base import Analysis


def default_figures(analysis: Analysis, tables: dict[str, pl.DataFrame]) -> dict[str, charts.Figure]:
    """Return a curve of the main table's first measure over its level; where there is no level, dots with intervals.

    Lines and dots are told apart by the model and by every other setting that differs.
    """
    table = tables.get(analysis.name, pl.DataFrame())
    measure = next((name for name in table.columns if f"{name}_low" in table.columns), None)
    if measure is None:
        return {}
    level = next((name for name in analysis.levels if name in table.columns and table[name].n_unique() > 1), None)
    settings = [name for name in table.columns[: table.columns.index("n_images")] if name not in RESERVED | {level}]
    words = [pl.col("model"), *(pl.col(name).cast(pl.String) for name in settings)]
    table = table.with_columns(pl.concat_str(words, separator=", ", ignore_nulls=True).alias("series"))
    column = analysis.columns.get(measure, PLAIN)
    shown, domain = column.head(measure), (0.0, 100.0) if column.unit == "percent" else None
    if level is None:
        encoding = charts.Encoding(x=measure, y="series", series="series", x_title=shown, x_domain=domain)
        return {analysis.name: charts.dots(table, encoding, title=analysis.title)}
    along = analysis.columns[level]
    encoding = charts.Encoding(
        x=level,
        y=measure,
        series="series",
        x_title=along.head(level),
        y_title=shown,
        x_format=".0%" if along.unit == "share" else None,
        y_domain=domain,
    )
    return {analysis.name: charts.curve(table, encoding, title=analysis.title)}
