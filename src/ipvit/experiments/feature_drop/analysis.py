"""What follows from accuracies with features lost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from ipvit.analysis import charts
from ipvit.analysis.aggregate import accuracy_table, varying, with_paper
from ipvit.analysis.answers import Fall, joined_names, told, told_exactly
from ipvit.analysis.base import Analysis
from ipvit.analysis.columns import COMMON, RUN, SHARED_MASK, Column
from ipvit.analysis.reduction import Reduction, in_study_order, joined
from ipvit.experiments.feature_drop.experiment import CLEAN, LAYERS
from ipvit.experiments.shared_masks import with_shared_masks

if TYPE_CHECKING:
    from ipvit.analysis.charts import Figure

COLUMNS = {
    **COMMON,
    "rate": Column(unit="share", level=True),
    "block": Column(special={str(CLEAN): "clean"}),
}
UNPERTURBED = {"block": CLEAN}


class FeatureDropAnalysis(Analysis):
    """Accuracy by the block whose input is lost and the share that is lost."""

    columns: dict[str, Column] = COLUMNS
    compare_by: tuple[str, ...] | None = ("block", "rate", "mask_scope")
    clean: dict[str, Any] = UNPERTURBED
    curve_over: tuple[tuple[str, ...], ...] = (("rate",),)
    mean_over: tuple[str, ...] = ("block", "rate")
    record_columns: tuple[str, ...] | None = (
        *("block", "rate", RUN, "mask_scope", "correct", "correct5", SHARED_MASK),
        LAYERS,
    )

    def reduce(self, records: pl.DataFrame) -> Reduction:
        """Average per block, rate and scope of the masks."""
        records = with_shared_masks(records)
        table = accuracy_table(records, ["model", "block", "rate", "mask_scope"])
        return self.reduced(records, {self.name: table, LAYERS: _layers(records)})

    def kind(self, reduction: Reduction) -> str:
        """Return how many blocks or stages the network has: a stage is no block, and the last is not the fifth."""
        return str(reduction.parts[LAYERS][LAYERS][0])

    def tables(self, reductions: Sequence[Reduction]) -> dict[str, pl.DataFrame]:
        """Return accuracy per model, block and rate; block -1 is the network as it is."""
        table = joined(reductions, self.name)
        settings = varying(table.filter(pl.col("block") != CLEAN), ["mask_scope"])
        by = ["model", "block", "rate", *settings]
        return {self.name: in_study_order(table.select(*by, pl.exclude(*by, "mask_scope")), by)}

    def figures(self, tables: dict[str, pl.DataFrame]) -> dict[str, Figure]:
        """Return a curve per model over the blocks, one panel per rate."""
        dropped = tables[self.name].filter(pl.col("block") != CLEAN)
        table = with_paper(dropped, tables, self.name).sort("block", "rate")
        if "mask_scope" in table.columns:  # measured with a mask per image and with shared ones: a curve for each
            words = [pl.col("model"), pl.format("mask per {}", "mask_scope")]
            table = table.with_columns(pl.concat_str(words, separator=", ", ignore_nulls=True).alias("model"))
        return {
            "feature-drop": charts.curve(
                table.with_columns(pl.format("{} % lost", (pl.col("rate") * 100).round().cast(pl.Int64)).alias("lost")),
                charts.Encoding(
                    x="block",
                    y="top1",
                    facet="lost",
                    x_title="Before block or stage (from 0)",
                    y_title="Top-1 accuracy (%)",
                    y_domain=(0, 100),
                    x_scale="ordinal",
                ),
                title="Feature drop",
            )
        }

    def lead(self, tables: dict[str, pl.DataFrame]) -> str:
        """Say what is left where the most features are lost, before each model's weakest block."""
        falls = [fall for _, _, fall in _weakest(tables[self.name])]
        rates = {rate for _, rate, _ in _weakest(tables[self.name])}
        if len(rates) != 1:
            return " ".join(text for _, text in self.sentences(tables))
        return told(falls, f"with {100 * rates.pop():.0f} % of the features lost at the weakest place")

    def sentences(self, tables: dict[str, pl.DataFrame]) -> Iterator[tuple[str, str]]:
        """Say where each model is most vulnerable at the highest rate."""
        for model, rate, fall in _weakest(tables[self.name]):
            yield model, told_exactly(fall, f"with {100 * rate:.0f} % of the features lost at its weakest place")

    def summary(self, tables: dict[str, pl.DataFrame]) -> list[str]:
        """Say the same, and what does not compare."""
        sentences = super().summary(tables)
        measured = {tuple(part["block"].unique().sort()) for _, part in tables[self.name].group_by("model")}
        return [*sentences, NOT_ALIKE] if len(measured) > 1 else sentences


NOT_ALIKE = (
    "Models that are built otherwise are not compared: a block of a transformer and a stage of a convolutional network "
    "of the same number are not the same depth."
)
"""What is said where models have other blocks."""


def _weakest(table: pl.DataFrame) -> Iterator[tuple[str, float, Fall]]:
    """Yield for each model its highest rate, and what that leaves before the block where it leaves least."""
    for (model,), frame in table.group_by(["model"], maintain_order=True):
        clean = next(iter(frame.filter(pl.col("block") == CLEAN).to_dicts()), None)
        dropped = frame.filter(pl.col("block") != CLEAN, pl.col("top1").is_finite())
        if dropped.height:
            worst = dropped.filter(pl.col("rate") == dropped["rate"].max()).sort("top1", maintain_order=True).to_dicts()
            least = [row["block"] for row in worst if row["top1"] == worst[0]["top1"]]
            note = f"before block or stage {joined_names([str(block) for block in sorted(set(least))])}"
            yield str(model), worst[0]["rate"], Fall.of(str(model), clean, worst[0], note)


def _layers(records: pl.DataFrame) -> pl.DataFrame:
    """Return what the network's blocks are; in records that do not say it, which of them were measured."""
    stated = records[LAYERS].drop_nulls() if LAYERS in records.columns else pl.Series(dtype=pl.String)
    numbers = records.filter(pl.col("block") != CLEAN)["block"].unique().sort()
    said = str(stated[0]) if len(stated) else f"blocks {', '.join(map(str, numbers))}"
    return pl.DataFrame({"model": [records["model"][0]], LAYERS: [said]})
