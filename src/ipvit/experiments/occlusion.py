"""Occlusion: PatchDrop (Naseer et al. 2021, section 3.1, figure 3)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator

from ipvit.experiments import charts
from ipvit.experiments.aggregate import accuracy_table, varying
from ipvit.experiments.base import Batch, Condition, ExampleImage, Experiment, Records, classify
from ipvit.experiments.grids import Grid, check_grid, rows_and_columns
from ipvit.models.model import Model
from ipvit.perturb.patchdrop import Fill, fill_content, n_dropped, patchdrop, random_keep
from ipvit.perturb.seeding import keys

if TYPE_CHECKING:
    import altair as alt
    import polars as pl
    from torch import Tensor

Mode = Literal["random"]
Level = Annotated[float, Field(ge=0, le=1)]

AUTHORS_BATCH = 256
"""Images that share one mask in the authors' code, which draws a mask per batch."""


@dataclasses.dataclass(frozen=True)
class OcclusionCondition(Condition):
    """One level of one run."""

    mode: str
    information_loss: float
    run: int
    grid: str
    fill: str
    nested: bool
    mask_scope: str


class Occlusion(Experiment):
    """Drop a share of the image's patches and watch the accuracy fall."""

    name: ClassVar[str] = "occlusion"
    version: ClassVar[int] = 1
    title: ClassVar[str] = "Occlusion: PatchDrop"
    reproduces: ClassVar[str] = "Figure 3"
    question: ClassVar[str] = "How much of the image can a network lose before it no longer recognises the object?"
    compare_by: ClassVar[tuple[str, ...]] = ("mode", "grid", "fill", "nested", "mask_scope", "information_loss")

    modes: tuple[Mode, ...] = ("random",)
    """Which patches are dropped: random."""
    levels: tuple[Level, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    """Information loss: the share of patches dropped."""
    runs: Annotated[int, Field(ge=1)] = 5
    """Random masks per image and level."""
    grid: Grid = "14x14"
    """Rows and columns of the patch grid; it must divide the image."""
    fill: Fill = "black"
    """What dropped pixels become: black (the paper), the image's mean colour, noise, or a blurred copy."""
    nested: bool = False
    """Let the patches dropped at a level be among those dropped at every higher level of the same run."""
    mask_scope: Literal["image", "batch"] = "image"
    """One mask per image, or one for every 256 images as in the authors' code."""

    @field_validator("modes", "levels")
    @classmethod
    def _not_empty_and_once(cls, value: tuple[object, ...]) -> tuple[object, ...]:
        if not value:
            raise ValueError("at least one is needed")
        return tuple(dict.fromkeys(value))

    def check(self, model: Model) -> None:
        """Raise InputError when the grid does not divide the model's input."""
        check_grid(self.grid, model)

    def conditions(self, model: Model) -> Sequence[OcclusionCondition]:
        """Return mode x level x run; without loss there is nothing random, so level 0 has a single run."""
        return [
            OcclusionCondition(mode, level, run, self.grid, self.fill, self.nested, self.mask_scope)
            for mode in self.modes
            for level in sorted(self.levels)
            for run in range(self.runs if level > 0 else 1)
        ]

    def measure(self, model: Model, batch: Batch) -> Iterator[Records]:
        """Classify the batch under every condition."""
        for condition in batch.conditions:
            keep, images = self._occlude(batch, condition)
            columns = classify(model, images, batch.labels)
            columns["patches_dropped"] = (~keep).sum(axis=(1, 2)).astype(np.int32)
            yield Records(condition, columns)

    def tables(self, records: pl.DataFrame) -> dict[str, pl.DataFrame]:
        """Return accuracy per model, mode and information loss."""
        settings = varying(records, ["grid", "fill", "nested", "mask_scope"])
        table = accuracy_table(records, ["model", "mode", *settings, "information_loss"])
        return {"occlusion": table.sort("mode", *settings, "model", "information_loss", maintain_order=True)}

    def figures(self, tables: dict[str, pl.DataFrame]) -> dict[str, alt.LayerChart]:
        """Return one curve per model for every mode, as in figure 3."""
        return {
            f"occlusion-{mode}": charts.curve(
                frame,
                x="information_loss",
                y="top1",
                series="model",
                x_title="Information loss (share of patches dropped)",
                y_title="Top-1 accuracy (%)",
                title=f"{str(mode).capitalize()} PatchDrop",
                x_format=".0%",
                y_domain=(0, 100),
                n="n_images",
            )
            for (mode,), frame in tables["occlusion"].group_by(["mode"], maintain_order=True)
        }

    def examples(self, model: Model, batch: Batch) -> Iterator[ExampleImage]:
        """Yield the first image at every level."""
        first = batch.part(0, 1)
        for condition in self.conditions(model):
            if condition.run == 0:
                _, images = self._occlude(first, condition)
                yield ExampleImage(f"{condition.mode}, information loss {condition.information_loss:.0%}", images[0])

    def summary(self, tables: dict[str, pl.DataFrame]) -> list[str]:
        """Say what is left of each model's accuracy at the level nearest to half of the patches."""
        sentences = []
        for (mode, model), frame in tables["occlusion"].group_by(["mode", "model"], maintain_order=True):
            rows = {row["information_loss"]: row for row in frame.to_dicts()}
            half = min(rows, key=lambda level: abs(level - 0.5))
            if 0.0 in rows and half > 0 and rows[0.0]["top1"] > 0:
                clean, left = rows[0.0]["top1"], rows[half]["top1"]
                sentences.append(
                    f"{model} keeps {left:.1f} % top-1 of its {clean:.1f} % when {half:.0%} of the patches are dropped "
                    f"({mode}): {left / clean:.0%} of its accuracy."
                )
        return sentences

    def _occlude(self, batch: Batch, condition: OcclusionCondition) -> tuple[np.ndarray, Tensor]:
        grid = rows_and_columns(condition.grid)
        owners = batch.ids
        if condition.mask_scope == "batch":
            owners = tuple(f"images {position // AUTHORS_BATCH}" for position in batch.positions.tolist())
        level = None if condition.nested else condition.information_loss
        key = keys(owners, batch.seed, self.name, condition.mode, condition.grid, condition.run, level)
        keep = random_keep(key, grid, n_dropped(condition.information_loss, grid[0] * grid[1]))
        if keep.all():
            return keep, batch.images
        content = fill_content(batch.images, condition.fill, key)  # pyright: ignore[reportArgumentType]
        return keep, patchdrop(batch.images, keep, content)
