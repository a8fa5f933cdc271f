"""What follows from the correlations of clean and occluded representations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from ipvit.analysis import charts
from ipvit.analysis.aggregate import mean_table, paired_differences, varying, with_paper
from ipvit.analysis.base import Analysis, by_model, compared
from ipvit.analysis.columns import COMMON, Column, measured
from ipvit.analysis.record_columns import RUN
from ipvit.analysis.reduction import Reduction, in_study_order, joined
from ipvit.experiments.correlation.experiment import SETTINGS

if TYPE_CHECKING:
    from ipvit.analysis.charts import Figure

COLUMNS = {
    **COMMON,
    "information_loss": Column(unit="share", level=True),
    "correlation": measured("correlation", range=(-1, 1)),
}
_BY = ("model", *SETTINGS, "block", "information_loss")


class CorrelationAnalysis(Analysis):
    """Correlation over the share of patches that is dropped, of all images and of each superclass."""

    columns: dict[str, Column] = COLUMNS
    metric: str = "correlation"
    compare_by: tuple[str, ...] | None = (*SETTINGS, "information_loss")
    record_columns: tuple[str, ...] | None = (*_BY[1:], RUN, "correlation", "superclass")

    def reduce(self, records: pl.DataFrame) -> Reduction:
        """Average per level and block, and per superclass.

        Two models are compared by what was read at each one's deepest block: blocks of different networks are not the
        same thing.
        """
        parts = {self.name: mean_table(records, _BY, ["correlation"], self.columns)}
        grouped = records.filter(pl.col("superclass") != "")
        if grouped.height:
            parts[f"{self.name}-superclass"] = mean_table(grouped, [*_BY, "superclass"], ["correlation"], self.columns)
        return self.reduced(records, parts, compared=_last_block(records))

    def tables(self, reductions: Sequence[Reduction]) -> dict[str, pl.DataFrame]:
        """Return mean and spread per model and level, and per superclass where the classes are ImageNet's."""
        main, groups = joined(reductions, self.name), joined(reductions, f"{self.name}-superclass")
        several = varying(main, [*SETTINGS, "block"])
        by = ["model", *several, "information_loss"]
        hidden = [name for name in _BY if name not in by]
        tables = {self.name: in_study_order(main.drop(hidden), by)}
        if groups.height:
            tables[f"{self.name}-superclass"] = in_study_order(groups.drop(hidden), [*by, "superclass"])
        return tables

    def differences(self, reductions: Sequence[Reduction]) -> pl.DataFrame | None:
        """Compare the models at their deepest blocks.

        The class token of one network stands beside the pooled features of another, as in table 1, unless a network
        was read in several ways.
        """
        values = compared(reductions)
        if not varying(joined(reductions, self.name), ["feature"]):
            values = {model: found.without("feature") for model, found in values.items()}
        return paired_differences(values)

    def figures(self, tables: dict[str, pl.DataFrame]) -> dict[str, Figure]:
        """Return a curve per model over the levels, and the superclasses at the level nearest to half, as figure 5."""
        figures = {
            self.name: charts.curve(
                with_paper(_last_block(tables[self.name]), tables, self.name),
                charts.Encoding(
                    x="information_loss",
                    y="correlation",
                    x_title="Information loss (share of patches dropped)",
                    y_title="Correlation with the clean image",
                    x_format=".0%",
                    y_format=".2f",
                ),
                title="Correlation of representations",
            )
        }
        if (groups := f"{self.name}-superclass") in tables:
            table = _at_half(tables[groups])
            figures[groups] = charts.bars(
                table,
                charts.Encoding(
                    x="superclass", y="correlation", y_title="Correlation with the clean image", y_format=".2f"
                ),
                title=f"By superclass, {table['information_loss'][0]:.0%} of the patches dropped",
            )
        return figures

    def answer(self, tables: dict[str, pl.DataFrame]) -> dict[str, str]:
        """Say how far each model's representations survive at the level nearest to half."""
        rows = _at_half(tables[self.name]).filter(pl.col("correlation").is_finite())
        return by_model(
            (
                row["model"],
                f"{row['model']}{_read(row)}: with {row['information_loss']:.0%} of the patches dropped, "
                f"representations correlate with the clean ones at {row['correlation']:.2f}.",
            )
            for row in rows.to_dicts()
        )

    def summary(self, tables: dict[str, pl.DataFrame]) -> list[str]:
        """Say how the models rank at the level nearest to half."""
        rows = _at_half(tables[self.name]).sort("correlation", descending=True)
        ranked = ", ".join(f"{row['model']} {row['correlation']:.2f}" for row in rows.to_dicts())
        half = rows["information_loss"][0]
        return [f"With {half:.0%} of the patches dropped, representations correlate with the clean ones: {ranked}."]


def _at_half(table: pl.DataFrame) -> pl.DataFrame:
    """Keep the level nearest to half, at each model's deepest block."""
    table = _last_block(table)
    half = min(table["information_loss"].unique().sort(), key=lambda level: abs(level - 0.5))
    return table.filter(pl.col("information_loss") == half)


def _read(row: dict[str, Any]) -> str:
    """Say how a representation was read, where there are several ways."""
    words = [f"{name} {row[name]}" for name in SETTINGS if name in row]
    return f" ({', '.join(words)})" if words else ""


def _last_block(table: pl.DataFrame) -> pl.DataFrame:
    """Keep each model's deepest block, where there are several."""
    if "block" not in table.columns:
        return table
    return table.filter(pl.col("block") == pl.col("block").max().over("model"))
