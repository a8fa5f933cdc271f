"""Segmenting objects by attention (section 3.2, table 4 of segmentation, figure 8)."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
import polars as pl
import torch
from pydantic import Field, PrivateAttr, field_validator
from torch import Tensor

from ipvit.data.loader import VOID
from ipvit.errors import InputError
from ipvit.experiments.base import Batch, Condition, ExampleImage, Experiment, Records, Requirements
from ipvit.experiments.fields import Several
from ipvit.experiments.segment import analysis as segment_tables
from ipvit.experiments.segment.overlays import outlined
from ipvit.metrics.exact import double
from ipvit.metrics.jaccard import jaccard
from ipvit.models.adapters.base import DISTILLATION_NAMES
from ipvit.models.model import Model
from ipvit.perturb.salience import mass_mask

if TYPE_CHECKING:
    from ipvit.analysis.charts import Figure
    from ipvit.preprocessing import View

BEST, MEAN = "best", "mean"
EVERYTHING, CENTRE = "everything", "centre"
CENTRE_SIDE = 0.5
"""Height and width of the centre box over those of the image."""

_MOST_CELLS = 2**27  # attention values at a time, of one block: half a gigabyte
_EXAMPLES = 4


@dataclasses.dataclass(frozen=True)
class SegmentCondition(Condition):
    """One mask per image: of a head (its number), of the mean of all, or without a network."""

    token: str
    block: int
    threshold: float
    head: str
    protocol: str


class Segment(Experiment):
    """Take the patches that hold most of the last block's attention for the foreground and compare with masks."""

    name: ClassVar[str] = "segment"
    version: ClassVar[int] = 1
    title: ClassVar[str] = "Segmentation by attention"
    reproduces: ClassVar[str] = "Table 4 and Figure 8"
    question: ClassVar[str] = "Does a network's attention know where the object is, without ever having been told?"
    compare: ClassVar[str] = "jaccard"
    compare_by: ClassVar[tuple[str, ...]] = ("token", "threshold", "mask", "protocol")

    thresholds: Several[Annotated[float, Field(gt=0, lt=1)]] = (0.9,)
    """The foreground is the fewest patches that hold this share of the attention; several are a sweep."""
    block: int = -1
    """Whose attention; -1 is the last block."""
    protocol: Literal["ours", "authors"] = "ours"
    """authors: pixels marked as void count as background, and images are scaled bilinearly, as in their code."""

    _latest: tuple[weakref.ref[Model], weakref.ref[Tensor], dict[str, Tensor]] | None = PrivateAttr(default=None)
    """The attention that was measured last, and on what: the report's pictures show it without another pass."""

    @field_validator("thresholds")
    @classmethod
    def _in_order(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(sorted(value))

    @property
    def needs(self) -> Requirements:
        """Attention from a class token, and masks to compare with."""
        return Requirements(frozenset({"attention"}), labels=False, masks=True)

    def view(self, model: Model) -> View:
        """Return the whole picture scaled to the model's input, as in the authors' code: proportions are not kept."""
        own = model.preprocessing.view
        interpolation = "bilinear" if self.protocol == "authors" else own.interpolation
        return dataclasses.replace(own, crop_pct=1.0, crop_mode="squash", interpolation=interpolation)

    def check(self, model: Model) -> None:
        """Raise InputError when there is no class token, no such block, or the patches do not fill the input."""
        if not _tokens(model):
            raise InputError(f"segment: {model.name} has no class token")
        count = model.adapter.n_blocks
        if not -count <= self.block < count:
            raise InputError(f"segment: {model.name} has blocks 0 to {count - 1}, not {self.block}")
        grid = model.adapter.patch_grid(model.image_size)
        if any(side % cells for side, cells in zip(model.image_size, grid, strict=True)):
            raise InputError(f"segment: the {grid[0]}x{grid[1]} patches of {model.name} do not fill its input")

    def conditions(self, model: Model) -> Sequence[SegmentCondition]:
        """Return token x threshold x head, the oracle and the mean among them, and the masks without a network."""
        block = self.block % model.adapter.n_blocks
        names = [*map(str, range(model.n_heads(block))), MEAN, BEST]
        return [
            *(
                SegmentCondition(token, block, threshold, head, self.protocol)
                for token in _tokens(model)
                for threshold in self.thresholds
                for head in names
            ),
            *(SegmentCondition("", -1, 1.0, name, self.protocol) for name in (EVERYTHING, CENTRE)),
        ]

    def measure(self, model: Model, batch: Batch) -> Iterator[Records]:
        """Return each mask's Jaccard index with every object, averaged over the objects of an image.

        The oracle takes the best head for each object by itself.
        """
        assert batch.regions is not None
        groups: dict[tuple[str, float], list[SegmentCondition]] = {}
        for condition in batch.conditions:
            groups.setdefault((condition.token, condition.threshold), []).append(condition)
        attention = self._attention(model, batch.images) if any(token for token, _ in groups) else {}
        if attention:
            self._latest = weakref.ref(model), weakref.ref(batch.images), attention
        names = ["jaccard"] if batch.regions.shape[1] == 1 else ["jaccard", "jaccard_instance"]
        for (token, threshold), conditions in groups.items():
            masks = {name: mask for name, mask in _without_network(batch.images).items() if not token}
            if token:
                masks = head_masks(attention[token].nan_to_num(0, 0, 0), threshold)
            columns = [self._compare(masks, plane) for plane in batch.regions.unbind(1)]
            finite = np.ones(len(batch), dtype=bool)
            if token:
                finite = attention[token].flatten(1).isfinite().all(dim=1).cpu().numpy()
            for condition in conditions:
                values = {
                    name: np.where(finite, column[condition.head], np.nan)
                    for name, column in zip(names, columns, strict=True)
                }
                yield Records(condition, values | {"finite": finite})

    def _compare(self, masks: dict[str, Tensor], regions: Tensor) -> dict[str, np.ndarray]:
        """Return per mask ``(B,)``, the mean over an image's objects; NaN where there is none."""
        found = {name: np.full(len(regions), np.nan) for name in (*masks, BEST)}
        heads = [name for name in masks if name.isdecimal()]
        for row, numbers in enumerate(regions):
            objects = [numbers == i for i in numbers.unique().tolist() if i not in (0, VOID)]
            if not objects:
                continue
            height, width = numbers.shape
            stacked = torch.stack([_enlarged(mask[row], height, width) for mask in masks.values()])
            ignore = None if self.protocol == "authors" else numbers == VOID
            overlap = jaccard(stacked[:, None], torch.stack(objects)[None], ignore).cpu().numpy()  # masks x objects
            for name, values in zip(masks, overlap, strict=True):
                found[name][row] = values.mean()
            if heads:
                found[BEST][row] = overlap[[list(masks).index(name) for name in heads]].max(axis=0).mean()
        return found

    def tables(self, records: pl.DataFrame) -> dict[str, pl.DataFrame]:
        """Return the Jaccard index of the ways to make one mask of many heads, and of every head."""
        return segment_tables.tables(records)

    def comparable(self, records: pl.DataFrame) -> pl.DataFrame:
        """Return what the best head for each object and the mean of the heads reach on every image, in percent."""
        names = {BEST: segment_tables.ORACLE, MEAN: segment_tables.AVERAGE}
        rows = records.filter(pl.col("head").is_in(list(names)) & (pl.col("token") != ""))
        return rows.with_columns(
            pl.col("head").replace_strict(names).alias("mask"), pl.col("jaccard").cast(pl.Float64) * 100
        )

    def figures(self, tables: dict[str, pl.DataFrame]) -> dict[str, Figure]:
        """Return the masks of each model side by side, and over the thresholds where there are several."""
        return segment_tables.figures(tables)

    def summary(self, tables: dict[str, pl.DataFrame]) -> list[str]:
        """Say how well attention finds the objects, and how well one does without a network."""
        return segment_tables.summary(tables)

    def examples(self, model: Model, batch: Batch) -> Iterator[ExampleImage]:
        """Yield some images with the outlines of their objects, and the masks of the best head and of the mean."""
        assert batch.regions is not None
        attention = self._measured(model, batch.images)
        part = batch.part(0, _EXAMPLES)
        assert part.regions is not None
        if attention is None:
            attention = self._attention(model, part.images)
        threshold = min(self.thresholds, key=lambda value: abs(value - 0.9))
        for row, image in enumerate(part.images):
            objects = (part.regions[row, -1] > 0) & (part.regions[row, -1] != VOID)
            yield ExampleImage("image and outline of the objects", outlined(image, objects, None))
            for token, maps in attention.items():
                masks = head_masks(maps[row : row + 1].nan_to_num(0, 0, 0), threshold)
                values = self._compare(masks, part.regions[row : row + 1, 0])
                heads = [name for name in masks if name.isdecimal()]
                best = max(heads, key=lambda name: np.nan_to_num(values[name][0]))
                for name, words in ((best, f"head {best}, the best here"), (MEAN, "mean of the heads")):
                    mask = _enlarged(masks[name][0], *image.shape[-2:])
                    caption = f"{model.name}, {token} token, {words}: Jaccard {100 * values[name][0]:.0f}"
                    yield ExampleImage(caption, outlined(image, objects, mask))

    def _measured(self, model: Model, images: Tensor) -> dict[str, Tensor] | None:
        """Return the attention that was last measured, if it was this network's on these very images."""
        if self._latest is None or self._latest[0]() is not model or self._latest[1]() is not images:
            return None
        return self._latest[2]

    def _attention(self, model: Model, images: Tensor) -> dict[str, Tensor]:
        """Return per token the attention from it to the patches, ``(B, heads, rows, columns)``."""
        adapter = model.adapter
        block = self.block % adapter.n_blocks
        rows, columns = adapter.patch_grid((images.shape[-2], images.shape[-1]))
        first = len(adapter.prefix)
        step = max(1, _MOST_CELLS // (16 * (rows * columns + first) ** 2))
        parts: dict[str, list[Tensor]] = {token: [] for token in _tokens(model)}
        for start in range(0, len(images), step):
            maps = model.prefix_attention(images[start : start + step], block)
            for token, found in parts.items():
                seen = maps[:, :, adapter.prefix.index(token), first:]
                found.append(seen.unflatten(-1, (rows, columns)).clone())
        return {token: torch.cat(found) for token, found in parts.items()}


def head_masks(attention: Tensor, threshold: float) -> dict[str, Tensor]:
    """Return the foreground by each head, named by its number, and by the mean of the heads.

    Args:
        attention: ``(B, heads, rows, columns)``, from a token to the patches.
        threshold: share of the attention to the patches that the foreground holds.

    Returns:
        bool ``(B, rows, columns)`` each.
    """
    masks = {str(head): mass_mask(attention[:, head], threshold) for head in range(attention.shape[1])}
    return masks | {MEAN: mass_mask(double(attention).mean(dim=1), threshold).to(attention.device)}


def _tokens(model: Model) -> list[str]:
    return [name for name in model.adapter.prefix if name in ("class", *DISTILLATION_NAMES)]


def _without_network(images: Tensor) -> dict[str, Tensor]:
    """Return the masks one has without looking: everything, and a box in the centre."""
    batch, _, height, width = images.shape
    everything = torch.ones(batch, height, width, dtype=torch.bool, device=images.device)
    centre = torch.zeros_like(everything)
    top, left = (round(side * (1 - CENTRE_SIDE) / 2) for side in (height, width))
    centre[:, top : height - top, left : width - left] = True
    return {EVERYTHING: everything, CENTRE: centre}


def _enlarged(mask: Tensor, height: int, width: int) -> Tensor:
    """Scale a mask of patches to pixels: every pixel as its patch."""
    return mask.repeat_interleave(height // mask.shape[0], 0).repeat_interleave(width // mask.shape[1], 1)
