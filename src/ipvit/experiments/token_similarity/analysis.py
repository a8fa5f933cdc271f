"""What follows from the similarity of two tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import polars as pl

from ipvit.analysis import charts
from ipvit.analysis.aggregate import mean_table, varying
from ipvit.analysis.base import Analysis
from ipvit.analysis.columns import COMMON, Column, measured
from ipvit.analysis.reduction import Reduction, joined

if TYPE_CHECKING:
    from ipvit.analysis.charts import Figure

COLUMNS = {**COMMON, "cosine": measured("cosine", range=(-1, 1))}


class TokenSimilarityAnalysis(Analysis):
    """The mean cosine of two tokens."""

    columns: dict[str, Column] = COLUMNS
    metric: str = "cosine"
    short: str = "tokens alike"
    compare_by: tuple[str, ...] | None = ("norm",)
    record_columns: tuple[str, ...] | None = ("tokens", "norm", "cosine")

    def reduce(self, records: pl.DataFrame) -> Reduction:
        """Average over images, after the final normalisation and before it."""
        return self.reduced(
            records, {self.name: mean_table(records, ["model", "tokens", "norm"], ["cosine"], self.columns)}
        )

    def tables(self, reductions: Sequence[Reduction]) -> dict[str, pl.DataFrame]:
        """Return mean and spread per model."""
        table = joined(reductions, self.name)
        return {self.name: table if varying(table, ["norm"]) else table.drop("norm")}

    def figures(self, tables: dict[str, pl.DataFrame]) -> dict[str, Figure]:
        """Return one row per model."""
        return {
            self.name: charts.dots(
                tables[self.name],
                charts.Encoding(
                    x="cosine", y="model", x_title="Cosine of class and shape (or distillation) token", x_format=".2f"
                ),
                title="How alike the two tokens are",
            )
        }

    def sentences(self, tables: dict[str, pl.DataFrame]) -> Iterator[tuple[str, str]]:
        """Say how alike the tokens of each model are."""
        for row in tables[self.name].to_dicts():
            yield (
                row["model"],
                f"{row['model']}: the tokens ({row['tokens']}) have a mean cosine of {row['cosine']:z.3f} over "
                f"{row['n_images']:,} images.",
            )
