"""Correlation of the representations of the clean and the occluded image (section 3.1, table 1, figure 5)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
import polars as pl
from pydantic import Field

from ipvit.analysis import charts
from ipvit.analysis.aggregate import mean_table, varying, with_paper
from ipvit.errors import InputError
from ipvit.experiments.base import Batch, Condition, Experiment, Records, Requirements
from ipvit.experiments.correlation.superclasses import superclass_of
from ipvit.experiments.fields import Several
from ipvit.experiments.grids import Grid, check_grid, rows_and_columns
from ipvit.metrics.correlation import correlation
from ipvit.models.adapters.base import DISTILLATION_NAMES
from ipvit.models.model import Model
from ipvit.perturb.patchdrop import n_dropped, patchdrop, random_keep
from ipvit.perturb.seeding import keys

if TYPE_CHECKING:
    from torch import Tensor

    from ipvit.analysis.charts import Figure

Feature = Literal["auto", "class", "distillation", "mean_patch", "pooled"]
SETTINGS = ("feature", "grid", "norm")


@dataclasses.dataclass(frozen=True)
class CorrelationCondition(Condition):
    """One level of one run, read out at one block."""

    information_loss: float
    run: int
    grid: str
    block: int
    feature: str
    norm: bool


class Correlation(Experiment):
    """Compare the representation of every image with that of its occluded copy."""

    name: ClassVar[str] = "correlation"
    version: ClassVar[int] = 1
    title: ClassVar[str] = "Correlation of representations under occlusion"
    reproduces: ClassVar[str] = "Table 1 and Figure 5"
    measures: ClassVar[tuple[str, ...]] = ("correlation",)
    question: ClassVar[str] = "How much of a network's representation survives when patches are lost?"
    compare: ClassVar[str] = "correlation"
    compare_by: ClassVar[tuple[str, ...]] = (*SETTINGS, "information_loss")

    levels: Several[Annotated[float, Field(gt=0, le=1)]] = (0.25, 0.5, 0.75)
    """Information loss: the share of patches dropped at random."""
    runs: Annotated[int, Field(ge=1)] = 1
    """Random masks per image and level."""
    grid: Grid = "14x14"
    """Rows and columns of the patch grid."""
    blocks: Several[int] = (-1,)
    """Where the representation is read; -1 is the last block or stage."""
    feature: Feature = "auto"
    """auto: the class token, or for networks without one the pooled features before the classifier."""
    norm: bool = True
    """Read tokens after the network's final normalisation, as the authors' forward does."""

    @property
    def needs(self) -> Requirements:
        """Tokens; labels only name the superclass."""
        return Requirements(frozenset({"tokens"}), labels=False)

    def check(self, model: Model) -> None:
        """Raise InputError when the grid does not divide the input, or there is no such block or token."""
        check_grid(self.grid, model)
        _blocks(model, self.blocks)
        tokens = {"distillation" if name in DISTILLATION_NAMES else name for name in model.adapter.prefix}
        if self.feature in ("class", "distillation") and self.feature not in tokens:
            raise InputError(f"correlation: {model.name} has no {self.feature} token; use auto, mean_patch or pooled")

    def conditions(self, model: Model) -> Sequence[CorrelationCondition]:
        """Return level x run x block."""
        feature = self._feature(model)
        return [
            CorrelationCondition(level, run, self.grid, block, feature, self.norm)
            for level in sorted(self.levels)
            for run in range(self.runs)
            for block in _blocks(model, self.blocks)
        ]

    def measure(self, model: Model, batch: Batch) -> Iterator[Records]:
        """Correlate; the clean image and each occluded copy go through the network once for all blocks."""
        blocks = sorted({condition.block for condition in batch.conditions})
        clean = self._vectors(model, batch.images, blocks)
        groups = np.array([superclass_of(model.classes, label) for label in batch.labels.tolist()])
        by_mask: dict[tuple[float, int], list[CorrelationCondition]] = {}
        for condition in batch.conditions:
            by_mask.setdefault((condition.information_loss, condition.run), []).append(condition)
        for (level, run), conditions in by_mask.items():
            occluded = self._vectors(model, self._occlude(batch, level, run), blocks)
            for condition in conditions:
                values = correlation(clean[condition.block], occluded[condition.block])
                yield Records(condition, {"correlation": values, "superclass": groups})

    def tables(self, records: pl.DataFrame) -> dict[str, pl.DataFrame]:
        """Return mean and spread per model and level, and per superclass where the classes are ImageNet's."""
        settings = varying(records, SETTINGS)
        by = ["model", *settings, *varying(records, ["block"]), "information_loss"]
        tables = {"correlation": mean_table(records, by, ["correlation"]).sort(by, maintain_order=True)}
        grouped = records.filter(pl.col("superclass") != "")
        if grouped.height:
            tables["correlation-superclass"] = mean_table(grouped, [*by, "superclass"], ["correlation"]).sort(
                *by, "superclass", maintain_order=True
            )
        return tables

    def comparable(self, records: pl.DataFrame) -> pl.DataFrame:
        """Return what was read at each model's deepest block: blocks of different networks are not the same thing.

        The class token of one network stands beside the pooled features of another, as in table 1.
        """
        last = _last_block(records)
        return last if varying(records, ["feature"]) else last.drop("feature")

    def figures(self, tables: dict[str, pl.DataFrame]) -> dict[str, Figure]:
        """Return a curve per model over the levels, and the superclasses at the level nearest to half, as figure 5."""
        figures = {
            "correlation": charts.curve(
                with_paper(_last_block(tables["correlation"]), tables, self.name),
                charts.Encoding(
                    x="information_loss",
                    y="correlation",
                    x_title="Information loss (share of patches dropped)",
                    y_title="Correlation with the clean image",
                    x_format=".0%",
                    y_format=".2f",
                ),
                title="Correlation of representations",
            )
        }
        if "correlation-superclass" in tables:
            table = _last_block(tables["correlation-superclass"])
            half = min(table["information_loss"].unique().sort(), key=lambda level: abs(level - 0.5))
            figures["correlation-superclass"] = charts.bars(
                table.filter(pl.col("information_loss") == half),
                charts.Encoding(
                    x="superclass", y="correlation", y_title="Correlation with the clean image", y_format=".2f"
                ),
                title=f"By superclass, {half:.0%} of the patches dropped",
            )
        return figures

    def summary(self, tables: dict[str, pl.DataFrame]) -> list[str]:
        """Say how the models rank at the level nearest to half."""
        table = _last_block(tables["correlation"])
        half = min(table["information_loss"].unique().sort(), key=lambda level: abs(level - 0.5))
        rows = table.filter(pl.col("information_loss") == half).sort("correlation", descending=True).to_dicts()
        ranked = ", ".join(f"{row['model']} {row['correlation']:.2f}" for row in rows)
        return [f"With {half:.0%} of the patches dropped, representations correlate with the clean ones: {ranked}."]

    def _feature(self, model: Model) -> str:
        if self.feature != "auto":
            return self.feature
        return "class" if "class" in model.adapter.prefix else "pooled"

    def _vectors(self, model: Model, images: Tensor, blocks: list[int]) -> dict[int, Tensor]:
        kind = self._feature(model)
        found = model.tokens(images, blocks, norm=self.norm)
        return {block: tokens.vector(kind) for block, tokens in found.items()}

    def _occlude(self, batch: Batch, level: float, run: int) -> Tensor:
        rows, columns = rows_and_columns(self.grid)
        # the masks of the occlusion experiment, so that both can be read side by side
        key = keys(batch.ids, batch.seed, "occlusion", "random", self.grid, run, level)
        return patchdrop(batch.images, random_keep(key, (rows, columns), n_dropped(level, rows * columns)))


def _blocks(model: Model, blocks: Sequence[int]) -> list[int]:
    count = model.adapter.n_blocks
    wrong = [block for block in blocks if not -count <= block < count]
    if wrong:
        raise InputError(f"{model.name} has blocks 0 to {count - 1} (or -1 for the last), not {wrong[0]}")
    return sorted({block % count for block in blocks})


def _last_block(table: pl.DataFrame) -> pl.DataFrame:
    """Keep each model's deepest block, where there are several."""
    if "block" not in table.columns:
        return table
    return table.filter(pl.col("block") == pl.col("block").max().over("model"))
