"""What follows from accuracies with features lost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from ipvit.analysis import charts
from ipvit.analysis.aggregate import accuracy_table, varying, with_paper
from ipvit.analysis.base import Analysis
from ipvit.analysis.columns import COMMON, Column
from ipvit.analysis.record_columns import RUN, SHARED_MASK
from ipvit.analysis.reduction import Reduction, in_study_order, joined
from ipvit.experiments.feature_drop.experiment import CLEAN
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
    record_columns: tuple[str, ...] | None = ("block", "rate", RUN, "mask_scope", "correct", "correct5", SHARED_MASK)

    def reduce(self, records: pl.DataFrame) -> Reduction:
        """Average per block, rate and scope of the masks."""
        records = with_shared_masks(records)
        return self.reduced(records, {self.name: accuracy_table(records, ["model", "block", "rate", "mask_scope"])})

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

    def sentences(self, tables: dict[str, pl.DataFrame]) -> Iterator[tuple[str, str]]:
        """Say where each model is most vulnerable at the highest rate."""
        for (model,), frame in tables[self.name].group_by(["model"], maintain_order=True):
            dropped = frame.filter(pl.col("block") != CLEAN)
            clean = frame.filter(pl.col("block") == CLEAN)["top1"]
            if dropped.height and len(clean):
                hardest = dropped.filter(pl.col("rate") == dropped["rate"].max()).sort("top1").row(0, named=True)
                yield (
                    str(model),
                    f"{model} falls from {clean[0]:.1f} % to {hardest['top1']:.1f} % top-1 when {hardest['rate']:.0%} "
                    f"of the features before block {hardest['block']} are lost, its weakest place at that rate.",
                )
