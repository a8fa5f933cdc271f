"""Figures of the corruptions: accuracy over severity, corruption errors, and mCE beside the paper's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from ipvit.analysis import charts
from ipvit.analysis.aggregate import with_paper
from ipvit.experiments.corruptions.experiment import is_keyed
from ipvit.experiments.corruptions.variants import FAMILY

if TYPE_CHECKING:
    from ipvit.analysis.charts import Figure


def draw(tables: dict[str, pl.DataFrame]) -> dict[str, Figure]:
    """Return the figures from the tables of :mod:`ipvit.experiments.corruptions.analysis`."""
    figures = {"corruptions-family": _families(tables["corruptions-family"])}
    if (panels := _panels(tables["corruptions"])) is not None:
        figures["corruptions"] = panels
    figures |= _errors(tables["corruptions-ce"])
    overall = tables["corruptions-mce"].with_columns(_series(tables["corruptions-mce"]))
    if overall["mce"].null_count() < overall.height:
        farthest = overall.select(pl.max_horizontal(pl.col("mce", "mce_high").max())).item()
        figures["corruptions-mce"] = charts.dots(
            with_paper(overall, tables, "corruptions").with_columns(pl.coalesce("series", "model").alias("series")),
            charts.Encoding(
                x="mce",
                y="series",
                series="series",
                x_title=f"mCE (%; {overall['reference'].drop_nulls()[0]} is 100, lower is better)",
                x_domain=(0, 1.05 * max(100.0, farthest)),
            ),
            title="Mean corruption error",
        )
    return figures


def _families(table: pl.DataFrame) -> Figure:
    return charts.curve(
        table.with_columns(_series(table)),
        charts.Encoding(
            x="severity",
            y="top1",
            series="series",
            facet="family",
            x_title="Severity (0: clean)",
            y_title="Top-1 accuracy (%)",
            y_domain=(0, 100),
        ),
        title="Corruptions by family",
        columns=min(4, table["family"].n_unique()),
        width=180,
        height=150,
    )


def _panels(table: pl.DataFrame) -> Figure | None:
    """One small panel per corruption, each beginning at the clean image."""
    corrupted = table.filter(pl.col("severity") > 0)
    there = set(corrupted["corruption"])
    names = [name for name in FAMILY if name in there] + sorted(there - set(FAMILY))
    if not names:
        return None
    clean = table.filter(pl.col("severity") == 0)
    rows = [
        pl.concat([clean, corrupted.filter(pl.col("corruption") == name)]).with_columns(
            pl.lit(f"{name.replace('_', ' ')}").alias("panel")
        )
        for name in names
    ]
    frame = pl.concat(rows)
    return charts.curve(
        frame.with_columns(_series(frame)),
        charts.Encoding(
            x="severity",
            y="top1",
            series="series",
            facet="panel",
            x_title="Severity",
            y_title="Top-1 (%)",
            y_domain=(0, 100),
        ),
        title="Every corruption",
        columns=_columns(len(names)),
        width=130,
        height=110,
    )


def _columns(panels: int) -> int:
    """Rows without a gap where that is possible: fifteen are three rows of five."""
    return next((columns for columns in (5, 4, 3) if panels % columns == 0), 5)


def _errors(table: pl.DataFrame) -> dict[str, Figure]:
    """Corruption errors where there is a reference for some, else plain errors."""
    divided = table["ce"].null_count() < table.height
    measure = "ce" if divided else "mean_error"
    reference = table["reference"].drop_nulls()
    title = f"Corruption error (%; {reference[0]} is 100)" if divided else "Error, mean of severities (%)"
    shown = table.filter(pl.col(measure).is_not_null()).with_columns(_series(table), _words("corruption"))
    if not shown.height:
        return {}
    return {
        "corruptions-ce": charts.dots(
            shown,
            charts.Encoding(x=measure, y="corruption", series="series", x_title=title, y_title="Corruption"),
            title="Error by corruption",
        )
    }


def _series(table: pl.DataFrame) -> pl.Expr:
    """Name a network, and how its pictures were made where that differs or they are keyed ones."""
    if "made" not in table.columns or (table["made"].n_unique() < 2 and not is_keyed(table["made"][0])):
        return pl.col("model").alias("series")
    return pl.concat_str("model", pl.lit(", "), "made").alias("series")


def _words(column: str) -> pl.Expr:
    return pl.col(column).str.replace_all("_", " ")
