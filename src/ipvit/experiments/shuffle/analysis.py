"""What follows from accuracies with the image's cells in another order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from ipvit.analysis import charts
from ipvit.analysis.aggregate import accuracy_table, with_paper
from ipvit.analysis.base import Analysis
from ipvit.analysis.columns import COMMON, Column
from ipvit.analysis.record_columns import RUN
from ipvit.analysis.reduction import Reduction, in_study_order, joined
from ipvit.experiments.shuffle.experiment import CLEAN

if TYPE_CHECKING:
    from ipvit.analysis.charts import Figure

COLUMNS = {**COMMON, "cells": Column(level=True), "instead_of": Column(title="instead of")}
UNPERTURBED = {"grid": CLEAN}


class ShuffleAnalysis(Analysis):
    """Accuracy over the number of cells that change places."""

    columns: dict[str, Column] = COLUMNS
    compare_by: tuple[str, ...] | None = ("cells", "grid")
    clean: dict[str, Any] = UNPERTURBED
    record_columns: tuple[str, ...] | None = ("grid", "cells", "instead_of", RUN, "correct", "correct5")

    def reduce(self, records: pl.DataFrame) -> Reduction:
        """Average per grid; where a grid stands for one that does not divide the input, the row says for which."""
        by = ["model", "grid", "cells"]
        if "instead_of" in records.columns and records["instead_of"].null_count() < records.height:
            by.append("instead_of")
        return self.reduced(records, {self.name: accuracy_table(records, by)})

    def tables(self, reductions: Sequence[Reduction]) -> dict[str, pl.DataFrame]:
        """Return accuracy per model and grid."""
        table = joined(reductions, self.name)
        if "instead_of" in table.columns:  # also where the first model has none: it tells rows apart
            table = table.select(
                "model", "grid", "instead_of", "cells", pl.exclude("model", "grid", "instead_of", "cells")
            )
        return {self.name: in_study_order(table, ["model", "cells"])}

    def figures(self, tables: dict[str, pl.DataFrame]) -> dict[str, Figure]:
        """Return one curve per model over the number of cells, as in figure 10."""
        table = with_paper(tables[self.name], tables, self.name)
        one_of_several = pl.col("grid").drop_nulls().n_unique().over("cells") > 1
        named = pl.when(one_of_several).then(pl.format("{} ({})", "cells", "grid"))
        place = pl.coalesce(named, pl.col("cells").cast(pl.String)).alias("place")
        places = table.sort("cells", "grid").with_columns(place)
        return {
            "shuffle": charts.curve(
                places,
                charts.Encoding(
                    x="place",
                    y="top1",
                    x_title="Cells that change places (1: the image as it is)",
                    y_title="Top-1 accuracy (%)",
                    y_domain=(0, 100),
                    x_scale="ordinal",
                ),
                title="Patch shuffle",
            )
        }

    def sentences(self, tables: dict[str, pl.DataFrame]) -> Iterator[tuple[str, str]]:
        """Say how far each model falls from the clean image to its worst grid."""
        for (model,), frame in tables["shuffle"].group_by(["model"], maintain_order=True):
            rows = frame.to_dicts()
            clean = next((row for row in rows if row["grid"] == CLEAN), None)
            worst = min(rows, key=lambda row: row["top1"])
            if clean is not None and worst is not clean:
                yield (
                    str(model),
                    f"{model} falls from {clean['top1']:.1f} % to {worst['top1']:.1f} % top-1 when the image is cut "
                    f"into {worst['grid']} cells that change places.",
                )
