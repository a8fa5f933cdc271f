"""Mean attention maps under a fixed mask, and attention distance (section 3.1, figures 4 and 26)."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
import polars as pl
import torch
from pydantic import Field, field_validator

from ipvit.errors import InputError
from ipvit.experiments import charts
from ipvit.experiments.aggregate import mean_table
from ipvit.experiments.base import Batch, Condition, ExampleImage, Experiment, Records, Requirements
from ipvit.experiments.grids import check_grid
from ipvit.experiments.heatmaps import mosaic
from ipvit.metrics.attention import attention_distance
from ipvit.models.model import Model
from ipvit.perturb.patchdrop import n_dropped, patchdrop, random_keep
from ipvit.perturb.seeding import keys

if TYPE_CHECKING:
    from torch import Tensor

    from ipvit.experiments.charts import Figure


@dataclasses.dataclass(frozen=True)
class AttentionCondition(Condition):
    """One block and head under one mask."""

    information_loss: float
    block: int
    head: int


class Attention(Experiment):
    """Average the attention from the class token to the patches over the data, with and without occlusion."""

    name: ClassVar[str] = "attention"
    version: ClassVar[int] = 1
    title: ClassVar[str] = "Attention maps"
    reproduces: ClassVar[str] = "Figure 4"
    question: ClassVar[str] = "Where does a transformer look when part of the image is gone?"

    levels: tuple[Annotated[float, Field(ge=0, le=1)], ...] = (0.0, 0.7)
    """Information loss; every image of a level loses the same patches, as in figure 4."""
    blocks: tuple[int, ...] = ()
    """Whose attention, from 0; by default the first two, the middle two and the last two, as in figure 4."""

    @field_validator("levels")
    @classmethod
    def _not_empty_and_once(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not value:
            raise ValueError("at least one is needed")
        return tuple(dict.fromkeys(value))

    @property
    def needs(self) -> Requirements:
        """A transformer with a class token."""
        return Requirements(frozenset({"attention"}), labels=False)

    def check(self, model: Model) -> None:
        """Raise InputError when there is no class token, no such block, or the patches do not fill the image."""
        if "class" not in model.adapter.prefix:
            raise InputError(f"attention: {model.name} has no class token")
        if max(self.levels) > 0:
            check_grid("x".join(map(str, model.adapter.patch_grid(model.image_size))), model)
        count = model.adapter.n_blocks
        wrong = [block for block in self.blocks if not 0 <= block < count]
        if wrong:
            raise InputError(f"attention: {model.name} has blocks 0 to {count - 1}, not {wrong[0]}")

    def conditions(self, model: Model) -> Sequence[AttentionCondition]:
        """Return level x block x head."""
        with torch.inference_mode():
            blank = torch.zeros(1, 3, *model.image_size, device=model.device)
            heads = {block: maps.shape[1] for block, maps in model.attention(blank, self._blocks(model)).items()}
        return [
            AttentionCondition(level, block, head)
            for level in self.levels
            for block, count in heads.items()
            for head in range(count)
        ]

    def measure(self, model: Model, batch: Batch) -> Iterator[Records]:
        """Keep each image's map (as float16 bytes) and its mean attention distance in pixels."""
        by_level: dict[float, list[AttentionCondition]] = {}
        for condition in batch.conditions:
            by_level.setdefault(condition.information_loss, []).append(condition)
        grid = model.adapter.patch_grid(model.image_size)
        prefix = model.adapter.prefix
        row, first = prefix.index("class"), len(prefix)
        for level, conditions in by_level.items():
            images = self._occlude(batch.images, grid, level, batch.seed)
            maps = model.attention(images, sorted({condition.block for condition in conditions}))
            for condition in conditions:
                whole = maps[condition.block][:, condition.head]
                seen = whole[:, row, first:].cpu().numpy().astype(np.float16)
                distance = attention_distance(whole[:, first:, first:], grid, _patch_size(model, grid))
                columns = {
                    "map": np.array([vector.tobytes() for vector in seen], dtype=object),
                    "rows": np.full(len(batch), grid[0], np.int32),
                    "distance": distance,
                }
                yield Records(condition, columns)

    def tables(self, records: pl.DataFrame) -> dict[str, pl.DataFrame]:
        """Return the mean attention distance per block and per head, and the mean maps as JSON lists of cells."""
        by = ["model", "information_loss", "block", "head"]
        heads = mean_table(records, by, ["distance"]).sort(by)
        blocks = mean_table(records, by[:-1], ["distance"]).sort(by[:-1])
        maps = []
        for key, group in records.group_by([*by, "rows"], maintain_order=True):
            cells = np.stack([np.frombuffer(cell, np.float16) for cell in group["map"]]).astype(np.float64).mean(axis=0)
            maps.append(dict(zip([*by, "rows"], key, strict=True)) | {"map": json.dumps([round(x, 6) for x in cells])})
        return {"attention": blocks, "attention-heads": heads, "attention-maps": pl.DataFrame(maps).sort(by)}

    def figures(self, tables: dict[str, pl.DataFrame]) -> dict[str, Figure]:
        """Return the grid of mean maps per model and level, heads by blocks, and the attention distances."""
        figures = {}
        for (model, level), frame in tables["attention-maps"].group_by(
            ["model", "information_loss"], maintain_order=True
        ):
            share = float(str(level))
            figures[f"attention-{_slug(model)}-{round(100 * share)}"] = mosaic(
                [(f"block {row['block']}", f"{row['head']}", _map(row)) for row in frame.iter_rows(named=True)],
                title=f"{model}: attention to the patches, {share:.0%} of them dropped",
                row_title="",
                column_title="head",
            )
        distance = tables["attention-heads"].with_columns(
            pl.format("{} % dropped", (pl.col("information_loss") * 100).round().cast(pl.Int64)).alias("lost")
        )
        figures["attention-distance"] = charts.dots(
            distance,
            x="block",
            y="distance",
            series="model",
            facet="lost",
            x_title="Block (from 0)",
            y_title="Mean attention distance (pixels)",
            title="Attention distance of every head",
            n="n_images",
        )
        return figures

    def examples(self, model: Model, batch: Batch) -> Iterator[ExampleImage]:
        """Yield the first image under every mask."""
        grid = model.adapter.patch_grid(model.image_size)
        for level in self.levels:
            image = self._occlude(batch.images[:1], grid, level, batch.seed)[0]
            yield ExampleImage(f"{level:.0%} of the patches dropped", image)

    def summary(self, tables: dict[str, pl.DataFrame]) -> list[str]:
        """Say how far heads look in the first and the last block that were read."""
        sentences = []
        clean = tables["attention"].filter(pl.col("information_loss") == pl.col("information_loss").min())
        for (model,), frame in clean.group_by(["model"], maintain_order=True):
            per_block = frame.group_by("block").agg(pl.col("distance").mean()).sort("block").rows()
            (first, near), (last, far) = per_block[0], per_block[-1]
            sentences.append(
                f"In {model} a patch looks {near:.0f} pixels away on average in block {first} and {far:.0f} in "
                f"block {last}."
            )
        return sentences

    def _blocks(self, model: Model) -> list[int]:
        if self.blocks:
            return sorted(set(self.blocks))
        count = model.adapter.n_blocks
        middle = count // 2
        return sorted({0, min(1, count - 1), max(middle - 1, 0), middle, max(count - 2, 0), count - 1})

    def _occlude(self, images: Tensor, grid: tuple[int, int], level: float, seed: int) -> Tensor:
        if level == 0:
            return images
        key = keys(["every image"], seed, self.name, level)
        return patchdrop(images, random_keep(key, grid, n_dropped(level, grid[0] * grid[1]))[0])


def _patch_size(model: Model, grid: tuple[int, int]) -> tuple[float, float]:
    height, width = model.image_size
    return height / grid[0], width / grid[1]


def _map(row: dict[str, Any]) -> np.ndarray:
    return np.array(json.loads(row["map"])).reshape(row["rows"], -1)


def _slug(name: object) -> str:
    return "".join(c if c.isalnum() or c in "._+" else "-" for c in str(name)).strip("-")
