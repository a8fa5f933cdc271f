"""What follows from clean accuracies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from ipvit.analysis import charts
from ipvit.analysis.aggregate import accuracy_table, varying
from ipvit.analysis.answers import each, joined_names, percent
from ipvit.analysis.base import Analysis
from ipvit.analysis.columns import CALIBRATION_RECORDS
from ipvit.analysis.perturbed import CHANCE
from ipvit.analysis.profile import Question, measured_question
from ipvit.analysis.reduction import Reduction, joined
from ipvit.analysis.sentences import ends, is_missing
from ipvit.experiments.accuracy.experiment import MEAN, OUTPUT

if TYPE_CHECKING:
    from ipvit.analysis.charts import Figure


class AccuracyAnalysis(Analysis):
    """Accuracy per model, and per token where a model has several."""

    compare_by: tuple[str, ...] | None = ()
    calibrated_by: tuple[str, ...] | None = ("token",)
    record_columns: tuple[str, ...] | None = ("token", "correct", "correct5", *CALIBRATION_RECORDS)

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

    def shows_clean(self, place: Mapping[str, Any]) -> bool:
        """Tell whether an answer is the model's own: of two heads, their mean."""
        return place.get("token") in (OUTPUT, MEAN)

    def with_retained(
        self, tables: Mapping[str, pl.DataFrame], reductions: Sequence[Reduction]
    ) -> dict[str, pl.DataFrame]:
        """Return the table with what guessing gives: nothing is perturbed, so nothing is retained."""
        known = {reduction.model: self.chance(reduction.n_answers) for reduction in reductions if reduction.n_answers}
        table = tables[self.name]
        if known:
            column = pl.col("model").cast(pl.String).replace_strict(known, default=None, return_dtype=pl.Float64)
            place = table.columns.index("top1_std") + 1
            table = table.insert_column(place, table.select(column.alias(CHANCE)).to_series())
        return {**tables, self.name: table}

    def questions(self, reductions: Sequence[Reduction], tables: Mapping[str, pl.DataFrame]) -> list[Question]:
        """Return the accuracy of each model's own answers: of two heads, their mean."""
        rows = [row for row in tables[self.name].to_dicts() if row.get("token", OUTPUT) in (OUTPUT, MEAN)]
        own = {row["model"]: row for row in rows}
        what = "top-1 accuracy on images as they are (%)"
        guessing = {r.model: f"guessing gives {self.chance(r.n_answers):.2f} %" for r in reductions if r.n_answers}
        place = {"token": OUTPUT}
        return [
            measured_question(
                self, reductions, own, "top1", key="clean", title="clean", what=what, protocol=guessing, place=place
            )
        ]

    def lead(self, tables: dict[str, pl.DataFrame]) -> str:
        """Say how accurate each model is by its own answers, and which ones only guess."""
        rows = [row for row in tables[self.name].to_dicts() if row.get("token", OUTPUT) in (OUTPUT, MEAN)]
        values = [(row["model"], row["top1"], percent(row["top1"])) for row in rows if not is_missing(row["top1"])]
        if not values:
            return ""
        chances = {row[CHANCE] for row in rows if not is_missing(row.get(CHANCE))}
        guessing = [
            row["model"]
            for row in rows
            if not is_missing(row.get(CHANCE)) and not is_missing(row["top1_low"]) and row["top1_low"] <= row[CHANCE]
        ]
        said = f"Right on images as they are: {each(values)}"
        if len(chances) == 1:
            said += f"; guessing gives {percent(chances.pop())}"
        if guessing:
            said += f", which {joined_names(guessing)} {'does' if len(guessing) == 1 else 'do'} not exceed measurably"
        return f"{said}."

    def sentences(self, tables: dict[str, pl.DataFrame]) -> Iterator[tuple[str, str]]:
        """Say how accurate each model is, and each of its heads."""
        for row in tables[self.name].to_dicts():
            said = f"{row['model']}{_of(row.get('token', OUTPUT))}: {row['top1']:.1f} % top-1{ends(row, 'top1', 1)}"
            yield row["model"], f"{said}." if is_missing(row["top5"]) else f"{said}, {row['top5']:.1f} % top-5."


def _of(token: str) -> str:
    return "" if token == OUTPUT else ", mean of both heads" if token == MEAN else f", head of the {token} token"
