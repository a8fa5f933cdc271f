"""What follows from accuracies with the image's cells in another order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from ipvit.analysis import charts
from ipvit.analysis.aggregate import accuracy_table, with_paper
from ipvit.analysis.answers import Fall, areas_told, told, told_exactly
from ipvit.analysis.base import Analysis
from ipvit.analysis.columns import CALIBRATION_RECORDS, COMMON, RUN, Column
from ipvit.analysis.perturbed import Scale
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
    curve_over: tuple[tuple[str, ...], ...] = (("cells", "grid"),)
    curve_scale: Scale = "log"
    record_columns: tuple[str, ...] | None = (
        "grid",
        "cells",
        "instead_of",
        RUN,
        "correct",
        "correct5",
        *CALIBRATION_RECORDS,
    )

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

    def lead(self, tables: dict[str, pl.DataFrame]) -> str:
        """Say what is left where all models were cut into the most cells, and over all grids."""
        table = tables[self.name].filter(pl.col("grid") != CLEAN)
        shared = [set(part["grid"]) for _, part in table.group_by("model")]
        grids = table.filter(pl.col("grid").is_in(list(set[str].intersection(*shared)) if shared else []))
        if grids.is_empty():  # cut into other cells each: nothing to set side by side
            return " ".join(text for _, text in self.sentences(tables))
        most = grids.sort("cells", "grid", maintain_order=True)["grid"][-1]
        falls = [fall for _, grid, fall in _falls(tables[self.name]) if grid == most]
        areas = areas_told(tables, self.name, "over cells, on a logarithmic scale, from")
        return " ".join(filter(None, (told(falls, f"when {most} cells of the image change places"), areas)))

    def sentences(self, tables: dict[str, pl.DataFrame]) -> Iterator[tuple[str, str]]:
        """Say what each model's worst grid leaves, and up to which one nothing is lost."""
        by_model: dict[str, list[tuple[str, Fall]]] = {}
        for model, grid, fall in _falls(tables[self.name]):
            by_model.setdefault(model, []).append((grid, fall))
        for model, falls in by_model.items():
            known = [(grid, fall) for grid, fall in falls if fall.left is not None]
            if not known:
                yield model, f"{model} has no result with its cells in another order."
                continue
            grid, worst = min(known, key=lambda found: found[1].left or 0)
            yield model, told_exactly(worst, f"when {grid} cells of the image change places")


def _falls(table: pl.DataFrame) -> Iterator[tuple[str, str, Fall]]:
    """Yield model, grid, and what the grid leaves."""
    for (model,), frame in table.group_by(["model"], maintain_order=True):
        rows = frame.to_dicts()
        clean = next((row for row in rows if row["grid"] == CLEAN), None)
        for row in rows:
            if row is not clean:
                yield str(model), row["grid"], Fall.of(str(model), clean, row)
