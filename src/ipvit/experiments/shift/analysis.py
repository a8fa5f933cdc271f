"""What follows from answers on shifted images: the drop from clean, and effective robustness."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from ipvit.analysis.aggregate import accuracy_table
from ipvit.analysis.base import Analysis
from ipvit.analysis.columns import CALIBRATION_RECORDS, COMMON, Column
from ipvit.analysis.profile import Question, measured_question
from ipvit.analysis.reduction import Reduction, joined
from ipvit.analysis.sentences import ends, is_missing
from ipvit.experiments.shift.experiment import CLEAN, SHIFTED
from ipvit.experiments.shift.lines import A_SELECTED, line_of
from ipvit.metrics.effective_robustness import difference_of_proportions, effective_robustness
from ipvit.metrics.retained import retained_of_other_images
from ipvit.models.published.shifts import SETS

if TYPE_CHECKING:
    from ipvit.analysis.charts import Figure

_BY = ("set", "clean_set", "images", "n_answers")

COLUMNS = {
    **COMMON,
    "set": Column(title="set"),
    "n_clean": Column(title="clean images", unit="count"),
    "n_shifted": Column(title="images", unit="count"),
    "clean": Column(title="clean (%)", unit="percent", digits=1),
    "top1": Column(title="top-1 (%)", unit="percent", digits=1, of="correct", average="proportion"),
    "drop": Column(title="drop (points)", digits=1),
    "predicted": Column(title="predicted (%)", unit="percent", digits=1),
    "effective": Column(title="effective robustness (points)", digits=1),
    "r2": Column(title="R² of the line", digits=3),
}

_LINE = ("predicted", "r2")
_FLOATS = (*_LINE, *(f"{name}{end}" for name in ("effective", "retained") for end in ("", "_low", "_high")))
"""Columns that are numbers also where all of them are missing."""


class ShiftAnalysis(Analysis):
    """Accuracy on each set beside the clean one over the same answers."""

    columns: dict[str, Column] = COLUMNS
    compare_by: tuple[str, ...] | None = ("set", "images", "n_answers")
    record_columns: tuple[str, ...] | None = (*_BY, "right", "correct", "correct5", *CALIBRATION_RECORDS)

    def reduce(self, records: pl.DataFrame) -> Reduction:
        """Count what is right, of shifted and of clean images."""
        records = self.calibrated_records(records)
        found = self.reduced(records, {self.name: accuracy_table(records, ["model", *_BY])})
        unlabelled = records.filter(pl.col("label") < 0)["image"].cast(pl.String).unique()
        return dataclasses.replace(found, unlabelled=frozenset(unlabelled))

    def tables(self, reductions: Sequence[Reduction]) -> dict[str, pl.DataFrame]:
        """Return one row for each model and set, and what its line says where there is one."""
        counted = joined(reductions, self.name)
        if counted.is_empty():
            return {}
        keys, models = ["model", "set", "n_answers"], [reduction.model for reduction in reductions]
        rows = [_row(key, group) for key, group in counted.group_by(keys, maintain_order=True)]
        found = [row for row in rows if row is not None]
        if not found:
            return {}
        found.sort(key=lambda row: (models.index(row["model"]), row["set"]))
        whole = pl.DataFrame(found, schema_overrides=dict.fromkeys(_FLOATS, pl.Float64), infer_schema_length=None)
        lines = whole.select("model", "set", "n_clean", *_LINE).filter(pl.col("predicted").is_not_null())
        return {self.name: whole.drop(_LINE)} | ({f"{self.name}-line": lines} if lines.height else {})

    def calibrated_records(self, records: pl.DataFrame) -> pl.DataFrame:
        """Return the records with the labels of their sets: each has its own."""
        return records.with_columns(pl.col("right").alias("label"))

    def shows_clean(self, place: Mapping[str, Any]) -> bool:
        """Tell whether images are of the clean set."""
        return place.get("images") == CLEAN

    def calibrated_conditions(self, name: str, table: pl.DataFrame) -> pl.DataFrame | None:
        """Return the rows as those of the shifted images; those of the clean ones are in ``ipvit calibration``."""
        return table.with_columns(images=pl.lit(SHIFTED)) if name == self.name else None

    def questions(self, reductions: Sequence[Reduction], tables: Mapping[str, pl.DataFrame]) -> list[Question]:
        """Return what is retained on each set; clean images are others than shifted ones, so nothing is paired."""
        found: list[Question] = []
        table = tables.get(self.name, pl.DataFrame(schema={"set": pl.String}))
        bare = [dataclasses.replace(reduction, values=None) for reduction in reductions]
        for (name,), frame in table.group_by(["set"], maintain_order=True):
            if frame["model"].n_unique() < frame.height:
                continue
            rows = {row["model"]: row | {"n_images": row["n_shifted"]} for row in frame.to_dicts()}
            what = f"accuracy above chance that is retained on {name} (%), beside the clean set"
            answers = {model: f"{row['n_answers']} answers" for model, row in rows.items()}
            found.append(
                measured_question(
                    self, bare, rows, "retained", key=f"shift-{name}", title=str(name), what=what, protocol=answers
                )
            )
        return found

    def figures(self, tables: dict[str, pl.DataFrame]) -> dict[str, Figure]:
        """Return for each set the published networks with the models of the run among them."""
        from ipvit.experiments.shift import charts

        return charts.draw(tables[self.name])

    def sentences(self, tables: dict[str, pl.DataFrame]) -> Iterator[tuple[str, str]]:
        """Say what is left of each model's accuracy, and whether that is more than its clean accuracy says."""
        for row in tables[self.name].to_dicts():
            said = (
                f"{row['model']} on {row['set']}: {row['top1']:.1f} % among {row['n_answers']:,} answers, a drop of "
                f"{row['drop']:z.1f} points{ends(row, 'drop', 1)} from the clean accuracy"
            )
            if not is_missing(row["effective"]):
                said += (
                    f"; effective robustness {row['effective']:+z.1f} points{ends(row, 'effective', 1, signed=True)}"
                )
            yield row["model"], f"{said}."

    def summary(self, tables: dict[str, pl.DataFrame]) -> list[str]:
        """Return the sentences, and what is to be borne in mind."""
        table, remarks = tables[self.name], list[str]()
        if table["effective"].null_count() < table.height:
            remarks.append(
                "Effective robustness is the accuracy less what the clean one predicts, by a line through timm's "
                "networks that saw ImageNet-1k alone (Taori et al. 2020)."
            )
        if table.filter(pl.col("effective").is_not_null() & (pl.col("set") == "imagenet-a")).height:
            remarks.append(A_SELECTED)
        partial = table.filter(pl.col("effective").is_null() & pl.col("set").is_in(list(SETS)))["set"].unique()
        if len(partial):
            names = ", ".join(partial.sort())
            remarks.append(
                f"No effective robustness on {names}: it needs all images, as published, and clean ones too."
            )
        return [*super().summary(tables), *remarks]


def _row(key: tuple[Any, ...], group: pl.DataFrame) -> dict[str, Any] | None:
    """Return a row of the table; None where clean or shifted images are missing."""
    by_images = {row["images"]: row for row in group.to_dicts()}
    if len(by_images) < 2:
        return None
    model, name, answers = key
    clean = by_images.pop(CLEAN)
    (shifted,) = by_images.values()
    right = [row["top1"] / 100 * row["n_images"] for row in (clean, shifted)]
    drop = difference_of_proportions(right[0], clean["n_images"], right[1], shifted["n_images"])
    line = line_of(name, clean["clean_set"], clean["n_images"], shifted["n_images"], answers)
    found = (
        None if line is None else effective_robustness(right[0], clean["n_images"], right[1], shifted["n_images"], line)
    )
    kept = retained_of_other_images((right[0], clean["n_images"]), (right[1], shifted["n_images"]), 1 / answers)
    kept_numbers = zip(("retained", "retained_low", "retained_high"), dataclasses.astuple(kept), strict=True)
    return {
        "model": model,
        "set": name,
        "n_answers": answers,
        "n_shifted": shifted["n_images"],
        "top1": shifted["top1"],
        "top1_low": shifted["top1_low"],
        "top1_high": shifted["top1_high"],
        "n_clean": clean["n_images"],
        "clean": clean["top1"],
        "clean_low": clean["top1_low"],
        "clean_high": clean["top1_high"],
        **{name: 100 * value for name, value in zip(("drop", "drop_low", "drop_high"), drop, strict=True)},
        **{name: None if math.isnan(value) else 100 * value for name, value in kept_numbers},
        "chance": 100 / answers,
        "predicted": None if found is None else 100 * found.predicted,
        "effective": None if found is None else 100 * found.value,
        "effective_low": None if found is None else 100 * found.low,
        "effective_high": None if found is None else 100 * found.high,
        "r2": None if line is None else line.r2,
    }
