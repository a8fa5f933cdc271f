"""Patch shuffle: how much does a network care where things are? (section 3.3, figures 9 to 11)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar

import polars as pl
from pydantic import Field, field_validator

from ipvit.analysis import charts
from ipvit.analysis.aggregate import accuracy_table, with_paper
from ipvit.experiments.base import Batch, Condition, ExampleImage, Experiment, Records, classify
from ipvit.experiments.fields import Several
from ipvit.experiments.grids import Grid, check_grid, rows_and_columns
from ipvit.models.model import Model
from ipvit.perturb.seeding import keys
from ipvit.perturb.shuffle import shuffle, shuffle_order

if TYPE_CHECKING:
    from torch import Tensor

    from ipvit.analysis.charts import Figure

CLEAN = "1x1"
"""The grid of a single cell: the image as it is."""


@dataclasses.dataclass(frozen=True)
class ShuffleCondition(Condition):
    """One grid and run."""

    grid: str
    cells: int
    run: int


class Shuffle(Experiment):
    """Cut the image into cells, put them together in a random order, and watch the accuracy fall."""

    name: ClassVar[str] = "shuffle"
    version: ClassVar[int] = 1
    title: ClassVar[str] = "Patch shuffle"
    reproduces: ClassVar[str] = "Figures 10 and 11"
    question: ClassVar[str] = "How much does a network rely on where the parts of an object are?"
    compare_by: ClassVar[tuple[str, ...]] = ("cells", "grid")
    reads: ClassVar[tuple[str, ...] | None] = ("grid", "cells", "run", "correct", "correct5")

    grids: Several[Grid] = ("2x2", "2x4", "4x4", "4x8", "8x8", "14x14", "16x16")
    """Rows and columns of cells; the unshuffled image is always measured too."""
    runs: Annotated[int, Field(ge=1)] = 1
    """Random orders per image and grid."""

    @field_validator("grids")
    @classmethod
    def _without_clean(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(grid for grid in value if grid != CLEAN) or (CLEAN,)

    def check(self, model: Model) -> None:
        """Raise InputError when a grid does not divide the model's input."""
        for grid in self.grids:
            check_grid(grid, model)

    def conditions(self, model: Model) -> Sequence[ShuffleCondition]:
        """Return the clean image, then grid x run."""
        ordered = sorted(self.grids, key=_cells)
        shuffled = [ShuffleCondition(g, _cells(g), run) for g in ordered if g != CLEAN for run in range(self.runs)]
        return [ShuffleCondition(CLEAN, 1, 0), *shuffled]

    def measure(self, model: Model, batch: Batch) -> Iterator[Records]:
        """Classify the batch in every order."""
        for condition in batch.conditions:
            yield Records(condition, classify(model, self._shuffled(batch, condition), batch.labels))

    def tables(self, records: pl.DataFrame) -> dict[str, pl.DataFrame]:
        """Return accuracy per model and grid."""
        return {
            "shuffle": accuracy_table(records, ["model", "grid", "cells"]).sort("model", "cells", maintain_order=True)
        }

    def figures(self, tables: dict[str, pl.DataFrame]) -> dict[str, Figure]:
        """Return one curve per model over the number of cells, as in figure 10."""
        table = with_paper(tables["shuffle"], tables, self.name)
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

    def examples(self, model: Model, batch: Batch) -> Iterator[ExampleImage]:
        """Yield the first image in every grid."""
        first = batch.part(0, 1)
        for condition in self.conditions(model):
            if condition.run == 0:
                yield ExampleImage(f"{condition.grid} cells", self._shuffled(first, condition)[0])

    def summary(self, tables: dict[str, pl.DataFrame]) -> list[str]:
        """Say how far each model falls from the clean image to its worst grid."""
        sentences = []
        for (model,), frame in tables["shuffle"].group_by(["model"], maintain_order=True):
            rows = frame.to_dicts()
            clean = next((row for row in rows if row["grid"] == CLEAN), None)
            worst = min(rows, key=lambda row: row["top1"])
            if clean is not None and worst is not clean:
                sentences.append(
                    f"{model} falls from {clean['top1']:.1f} % to {worst['top1']:.1f} % top-1 when the image is cut "
                    f"into {worst['grid']} cells that change places."
                )
        return sentences

    def _shuffled(self, batch: Batch, condition: ShuffleCondition) -> Tensor:
        if condition.cells == 1:
            return batch.images
        grid = rows_and_columns(condition.grid)
        key = keys(batch.ids, batch.seed, self.name, condition.grid, condition.run)
        return shuffle(batch.images, shuffle_order(key, grid), grid)


def _cells(grid: str) -> int:
    rows, columns = rows_and_columns(grid)
    return rows * columns
