"""What follows from clean accuracies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import polars as pl

from ipvit.analysis import charts
from ipvit.analysis.aggregate import accuracy_table, varying
from ipvit.analysis.base import Analysis
from ipvit.analysis.reduction import Reduction, joined
from ipvit.analysis.sentences import ends, is_missing
from ipvit.experiments.accuracy.experiment import MEAN, OUTPUT

if TYPE_CHECKING:
    from ipvit.analysis.charts import Figure


class AccuracyAnalysis(Analysis):
    """Accuracy per model, and per token where a model has several."""

    compare_by: tuple[str, ...] | None = ()
    record_columns: tuple[str, ...] | None = ("token", "correct", "correct5")

    def reduce(self, records: pl.DataFrame) -> Reduction:
        """Average per token; two models are compared by their own answers: of two heads, their mean."""
        table = accuracy_table(records, ["model", "token"])
        return self.reduced(records, {self.name: table}, compared=records.filter(pl.col("token").is_in([OUTPUT, MEAN])))

    def tables(self, reductions: Sequence[Reduction]) -> dict[str, pl.DataFrame]:
        """Return top-1 and top-5 accuracy per model, and per token where a model has several."""
        table = joined(reductions, self.name)
        return {self.name: table if varying(table, ["token"]) else table.drop("token")}

    def figures(self, tables: dict[str, pl.DataFrame]) -> dict[str, Figure]:
        """Return one row per model and token."""
        table = tables[self.name]
        words = [pl.col(name) for name in ("model", "token") if name in table.columns]
        series = pl.concat_str(words, separator=", ").str.strip_suffix(f", {OUTPUT}")
        return {
            self.name: charts.dots(
                table.with_columns(series.alias("series")),
                charts.Encoding(x="top1", y="series", series="series", x_title="Top-1 accuracy (%)"),
                title="Clean accuracy",
            )
        }

    def sentences(self, tables: dict[str, pl.DataFrame]) -> Iterator[tuple[str, str]]:
        """Say how accurate each model is, and each of its heads."""
        for row in tables[self.name].to_dicts():
            said = f"{row['model']}{_of(row.get('token', OUTPUT))}: {row['top1']:.1f} % top-1{ends(row, 'top1', 1)}"
            yield row["model"], f"{said}." if is_missing(row["top5"]) else f"{said}, {row['top5']:.1f} % top-5."


def _of(token: str) -> str:
    return "" if token == OUTPUT else ", mean of both heads" if token == MEAN else f", head of the {token} token"
