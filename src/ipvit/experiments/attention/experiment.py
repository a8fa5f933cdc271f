"""Mean attention maps under a fixed mask, and attention distance (section 3.1, figures 4 and 26)."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from pydantic import Field

from ipvit.analysis import charts
from ipvit.analysis.aggregate import mean_table
from ipvit.analysis.heatmaps import mosaic
from ipvit.errors import InputError
from ipvit.experiments.base import Batch, Condition, ExampleImage, Experiment, Records, Requirements
from ipvit.experiments.fields import Several
from ipvit.experiments.grids import check_grid
from ipvit.files import path_component
from ipvit.metrics.attention import attention_distance
from ipvit.models.model import Model
from ipvit.perturb.patchdrop import n_dropped, patchdrop, random_keep
from ipvit.perturb.place import Corner, shrink_into
from ipvit.perturb.seeding import keys

if TYPE_CHECKING:
    from torch import Tensor

    from ipvit.analysis.charts import Figure


@dataclasses.dataclass(frozen=True)
class AttentionCondition(Condition):
    """One block and head under one mask."""

    information_loss: float
    block: int
    head: int


@dataclasses.dataclass(frozen=True)
class PlacedCondition(AttentionCondition):
    """One block and head, the image shrunk into one place of a black canvas."""

    place: str
    scale: float


WHOLE = "whole image"
"""The place of an image that is not shrunk."""


class Attention(Experiment):
    """Average the attention from the class token to the patches over the data, with and without occlusion."""

    name: ClassVar[str] = "attention"
    version: ClassVar[int] = 1
    title: ClassVar[str] = "Attention maps"
    reproduces: ClassVar[str] = "Figures 4 and 26"
    measures: ClassVar[tuple[str, ...]] = ("distance",)
    question: ClassVar[str] = "Where does a transformer look when part of the image is gone?"

    levels: Several[Annotated[float, Field(ge=0, le=1)]] = (0.0, 0.7)
    """Information loss; every image of a level loses the same patches, as in figure 4."""
    blocks: tuple[int, ...] = ()
    """Whose attention, from 0; by default the first two, the middle two and the last two, as in figure 4."""

    corners: tuple[Corner, ...] = ()
    """Also with the image shrunk into these places of a black canvas: top-left, ..., centre, as in figure 26."""
    scale: Annotated[float, Field(gt=0, lt=1)] = 128 / 224
    """Side of the shrunk image over the canvas's (the paper: 128 of 224 pixels)."""

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
        """Return level x block x head, then place x block x head."""
        places = [(block, head) for block in self._blocks(model) for head in range(model.n_heads(block))]
        return [
            *(AttentionCondition(level, *place) for level in self.levels for place in places),
            *(PlacedCondition(0.0, *place, corner, self.scale) for corner in self.corners for place in places),
        ]

    def measure(self, model: Model, batch: Batch) -> Iterator[Records]:
        """Keep each image's map (as float16 bytes) and its mean attention distance in pixels."""
        by_image: dict[tuple[float, str], list[AttentionCondition]] = {}
        for condition in batch.conditions:
            place = condition.place if isinstance(condition, PlacedCondition) else WHOLE
            by_image.setdefault((condition.information_loss, place), []).append(condition)
        grid = model.adapter.patch_grid(model.image_size)
        prefix = model.adapter.prefix
        row, first = prefix.index("class"), len(prefix)
        for (level, place), conditions in by_image.items():
            images = self._altered(batch.images, grid, level, place, batch.seed)
            maps = model.attention(images, sorted({condition.block for condition in conditions}))
            cover = None
            if place != WHOLE:  # share of every patch that shows the image
                canvas = self._altered(torch.ones_like(images[:1, :1]), grid, level, place, batch.seed)
                cover = F.adaptive_avg_pool2d(canvas, grid).flatten()
            for condition in conditions:
                whole = maps[condition.block][:, condition.head]
                seen = whole[:, row, first:].cpu().numpy().astype(np.float16)
                distance = attention_distance(whole[:, first:, first:], grid, _patch_size(model, grid))
                columns = {
                    "map": np.array([vector.tobytes() for vector in seen], dtype=object),
                    "rows": np.full(len(batch), grid[0], np.int32),
                    "distance": distance,
                }
                if cover is not None:
                    columns["inside"] = (whole[:, row, first:] * cover).sum(dim=1) / whole[:, row, first:].sum(dim=1)
                yield Records(condition, columns)

    def tables(self, records: pl.DataFrame) -> dict[str, pl.DataFrame]:
        """Return the mean attention distance per block and per head, and the mean maps as JSON lists of cells.

        Where the image was shrunk into places, ``inside`` is the share of the attention that falls on it.
        """
        records, where = _with_places(records)
        by = ["model", "information_loss", *where, "block", "head"]
        measures = ["distance", *(["inside"] if where else [])]
        no_value = pl.selectors.float().fill_nan(None)  # of `inside`, where the image was not shrunk
        heads = mean_table(records, by, measures).sort(by).with_columns(no_value)
        blocks = mean_table(records, by[:-1], measures).sort(by[:-1]).with_columns(no_value)
        maps = []
        for key, group in records.group_by([*by, "rows"], maintain_order=True):
            seen = np.stack([np.frombuffer(cell, np.float16) for cell in group["map"]]).astype(np.float64)
            seen = seen[np.isfinite(seen).all(axis=1)]
            if not len(seen):
                continue
            cells = seen.mean(axis=0)
            maps.append(dict(zip([*by, "rows"], key, strict=True)) | {"map": json.dumps([round(x, 6) for x in cells])})
        tables = {"attention": blocks, "attention-heads": heads}
        return tables | ({"attention-maps": pl.DataFrame(maps).sort(by)} if maps else {})

    def figures(self, tables: dict[str, pl.DataFrame]) -> dict[str, Figure]:
        """Return the grid of mean maps per model and level, heads by blocks, and the attention distances."""
        figures = {}
        maps = _described(tables["attention-maps"]) if "attention-maps" in tables else None
        groups = [] if maps is None else maps.group_by(["model", "name", "seen"], maintain_order=True)
        for (model, name, seen), frame in groups:
            figures[f"attention-{path_component(str(model))}-{name}"] = mosaic(
                [(f"block {row['block']}", f"{row['head']}", _map(row)) for row in frame.iter_rows(named=True)],
                title=f"{model}: attention to the patches, {seen}",
                row_title="",
                column_title="head",
            )
        figures["attention-distance"] = charts.dots(
            _described(tables["attention-heads"]),
            x="block",
            y="distance",
            series="model",
            facet="seen",
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
            image = self._altered(batch.images[:1], grid, level, WHOLE, batch.seed)[0]
            yield ExampleImage(f"{level:.0%} of the patches dropped", image)
        for corner in self.corners:
            yield ExampleImage(corner, self._altered(batch.images[:1], grid, 0, corner, batch.seed)[0])

    def summary(self, tables: dict[str, pl.DataFrame]) -> list[str]:
        """Say how far heads look in the first and the last block that were read."""
        sentences = []
        clean = tables["attention"].filter(pl.col("information_loss") == pl.col("information_loss").min())
        placed = clean.clear()
        if "place" in clean.columns:
            placed, clean = clean.filter(pl.col("place") != WHOLE), clean.filter(pl.col("place") == WHOLE)
        for (model,), frame in clean.group_by(["model"], maintain_order=True):
            per_block = frame.group_by("block").agg(pl.col("distance").mean()).sort("block").rows()
            (first, near), (last, far) = per_block[0], per_block[-1]
            sentences.append(
                f"In {model} a patch looks {near:.0f} pixels away on average in block {first} and {far:.0f} in "
                f"block {last}."
            )
        for (model,), frame in placed.group_by(["model"], maintain_order=True):
            deepest = frame.filter(pl.col("block") == pl.col("block").max())
            inside, area = deepest["inside"].mean(), frame["scale"].mean() ** 2  # pyright: ignore[reportOptionalOperand, reportOperatorIssue]
            sentences.append(
                f"With the image shrunk to {area:.0%} of the canvas, {inside:.0%} of the attention of {model}'s block "
                f"{deepest['block'][0]} falls on it."
            )
        return sentences

    def _blocks(self, model: Model) -> list[int]:
        if self.blocks:
            return sorted(set(self.blocks))
        count = model.adapter.n_blocks
        middle = count // 2
        return sorted({0, min(1, count - 1), max(middle - 1, 0), middle, max(count - 2, 0), count - 1})

    def _altered(self, images: Tensor, grid: tuple[int, int], level: float, place: str, seed: int) -> Tensor:
        if place != WHOLE:
            height, width = images.shape[-2:]
            size = round(height * self.scale), round(width * self.scale)
            return shrink_into(images, size, place)  # pyright: ignore[reportArgumentType]
        if level == 0:
            return images
        key = keys(["every image"], seed, self.name, level)
        return patchdrop(images, random_keep(key, grid, n_dropped(level, grid[0] * grid[1]))[0])


def _patch_size(model: Model, grid: tuple[int, int]) -> tuple[float, float]:
    height, width = model.image_size
    return height / grid[0], width / grid[1]


def _with_places(records: pl.DataFrame) -> tuple[pl.DataFrame, list[str]]:
    """Return records whose images all have a place, and the columns that say so; none where nothing was shrunk."""
    if "place" not in records.columns:
        return records, []
    return records.with_columns(pl.col("place").fill_null(WHOLE), pl.col("scale").fill_null(1.0)), ["place", "scale"]


def _described(table: pl.DataFrame) -> pl.DataFrame:
    """Add what the image of a row was (``seen``), in words, and shorter for the name of a file (``name``)."""
    lost = (pl.col("information_loss") * 100).round().cast(pl.Int64)
    seen, name = pl.format("{} % dropped", lost), lost.cast(pl.String)
    if "place" in table.columns:
        side = (pl.col("scale") * 100).round().cast(pl.Int64)
        whole = pl.col("place") == WHOLE
        seen = pl.when(whole).then(seen).otherwise(pl.format("image at {} % of its size, {}", side, "place"))
        name = pl.when(whole).then(name).otherwise(pl.format("{}-{}", "place", side))
    return table.with_columns(seen.alias("seen"), name.alias("name"))


def _map(row: dict[str, Any]) -> np.ndarray:
    return np.array(json.loads(row["map"])).reshape(row["rows"], -1)
