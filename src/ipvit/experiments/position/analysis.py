"""What follows from accuracies with the image in a corner."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import polars as pl

from ipvit.analysis import charts
from ipvit.analysis.aggregate import accuracy_table, varying, with_paper
from ipvit.analysis.base import Analysis
from ipvit.analysis.columns import COMMON, Column
from ipvit.analysis.reduction import Reduction, in_study_order, joined
from ipvit.experiments.places import WHOLE
from ipvit.experiments.position.experiment import ORDER

if TYPE_CHECKING:
    from ipvit.analysis.charts import Figure

COLUMNS = {**COMMON, "place": Column(level=True)}
UNPERTURBED = {"place": WHOLE}


class PositionAnalysis(Analysis):
    """Accuracy by place."""

    columns: dict[str, Column] = COLUMNS
    compare_by: tuple[str, ...] | None = ("place", "scale")
    clean: dict[str, Any] = UNPERTURBED
    record_columns: tuple[str, ...] | None = ("place", "scale", "correct", "correct5")

    def reduce(self, records: pl.DataFrame) -> Reduction:
        """Average per place and scale."""
        return self.reduced(records, {self.name: accuracy_table(records, ["model", "place", "scale"])})

    def tables(self, reductions: Sequence[Reduction]) -> dict[str, pl.DataFrame]:
        """Return accuracy per model and place, and per scale where there are several."""
        table = joined(reductions, self.name)
        scales = varying(table.filter(pl.col("place") != WHOLE), ["scale"])
        order = pl.col("place").replace_strict({place: i for i, place in enumerate((WHOLE, *ORDER))}, default=99)
        table = in_study_order(table, ["model", order, *scales])
        return {self.name: table if scales else table.drop("scale")}

    def figures(self, tables: dict[str, pl.DataFrame]) -> dict[str, Figure]:
        """Return bars per place, one colour per model."""
        table = with_paper(tables[self.name], tables, self.name)
        if "scale" in table.columns:  # measured at several scales: a place for each
            scaled = pl.when(pl.col("place") != WHOLE).then(pl.format("{}, {}", "place", pl.col("scale").round(2)))
            table = table.with_columns(pl.coalesce(scaled, "place").alias("place"))
        return {
            "position": charts.bars(
                table,
                charts.Encoding(x="place", y="top1", y_title="Top-1 accuracy (%)"),
                title="The image shrunk into a corner",
            )
        }

    def sentences(self, tables: dict[str, pl.DataFrame]) -> Iterator[tuple[str, str]]:
        """Say what is left in the corners, and how much the corners differ."""
        for (model,), frame in tables["position"].group_by(["model"], maintain_order=True):
            whole = frame.filter(pl.col("place") == WHOLE)["top1"]
            corners = frame.filter(pl.col("place") != WHOLE)["top1"]
            if len(whole) and len(corners):
                spread = cast("float", corners.max()) - cast("float", corners.min())
                mean = cast("float", corners.mean())
                said = f"keeps {mean:.1f} % top-1 of its {whole[0]:.1f} %"
                if mean >= whole[0]:
                    said = f"has {mean:.1f} % top-1, and {whole[0]:.1f} % otherwise,"
                yield (
                    str(model),
                    f"{model} {said} when the image is shrunk into a corner; the corners differ by {spread:.1f} "
                    "points.",
                )
