"""What follows from accuracies with the image in a corner."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from ipvit.analysis import charts
from ipvit.analysis.aggregate import accuracy_table, varying, with_paper
from ipvit.analysis.answers import Fall, told, told_exactly
from ipvit.analysis.base import Analysis
from ipvit.analysis.columns import CALIBRATION_RECORDS, COMMON, Column
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
    mean_over: tuple[str, ...] = ("place",)
    short: str = "corner"
    record_columns: tuple[str, ...] | None = ("place", "scale", "correct", "correct5", *CALIBRATION_RECORDS)

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

    def lead(self, tables: dict[str, pl.DataFrame]) -> str:
        """Say what is left in a corner, on average over the corners."""
        return " ".join(
            told([fall for _, fall, _ in falls], f"when the image is shrunk into a corner{scale}")
            for scale, falls in _by_scale(tables[self.name]).items()
        )

    def sentences(self, tables: dict[str, pl.DataFrame]) -> Iterator[tuple[str, str]]:
        """Say what is left in the corners, and how much the corners differ."""
        for scale, falls in _by_scale(tables[self.name]).items():
            for model, fall, values in falls:
                spread = ""
                if len(values) > 1:
                    spread = f" Its corners lie between {min(values):.1f} % and {max(values):.1f} %."
                yield model, told_exactly(fall, f"when the image is shrunk into a corner{scale}") + spread


def _by_scale(table: pl.DataFrame) -> dict[str, list[tuple[str, Fall, list[float]]]]:
    """Return each model with what the corners leave of it, and their accuracies, by scale."""
    found: dict[str, list[tuple[str, Fall, list[float]]]] = {}
    for (model,), frame in table.group_by(["model"], maintain_order=True):
        rows = frame.to_dicts()
        clean = next((row for row in rows if row["place"] == WHOLE), None)
        corners = [row for row in rows if row["place"] != WHOLE]
        for scale in dict.fromkeys(row.get("scale") for row in corners):
            here = [row for row in corners if row.get("scale") == scale]
            words = "" if scale is None else f" at {scale:.2g} of its size"
            values = [row["top1"] for row in here]
            found.setdefault(words, []).append((str(model), Fall.over(str(model), clean, here), values))
    return found
