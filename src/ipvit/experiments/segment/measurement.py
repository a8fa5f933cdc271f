"""Measuring how well attention finds the objects of an image."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ipvit.core.queued.deferred import forbid
from ipvit.core.queued.readback import read_back
from ipvit.data.loader import VOID
from ipvit.errors import InputError
from ipvit.experiments.base import Batch, ExampleImage, Measurement, Records
from ipvit.experiments.segment.experiment import BEST, CENTRE, EVERYTHING, MEAN, Segment, SegmentCondition
from ipvit.experiments.segment.overlays import outlined
from ipvit.metrics.exact import double
from ipvit.metrics.jaccard import jaccard
from ipvit.models.adapters.base import DISTILLATION_NAMES, counted_blocks
from ipvit.models.model import Model
from ipvit.perturb.salience import IMPROPER, improper, mass_mask

CENTRE_SIDE = 0.5
"""Height and width of the centre box over those of the image."""

_MOST_CELLS = 2**27  # attention values at a time, of one block: half a gigabyte
_EXAMPLES = 4


class SegmentMeasurement(Measurement):
    """Segmentation in one run; the attention that was measured last is kept for the report's pictures.

    Raises:
        InputError: a model has no class token or no such block, or its patches do not fill the input.
    """

    def __init__(self, experiment: Segment, models: Sequence[Model]) -> None:
        self.experiment = experiment
        # on what it was measured says whether the pictures may show it without another pass
        self._latest: tuple[weakref.ref[Model], weakref.ref[Tensor], dict[str, Tensor]] | None = None
        for model in models:
            self._check(model)

    def _check(self, model: Model) -> None:
        if not _tokens(model):
            raise InputError(f"segment: {model.name} has no class token")
        count = model.adapter.n_blocks
        if not -count <= self.experiment.block < count:
            raise InputError(f"segment: {model.name} has blocks 0 to {count - 1}, not {self.experiment.block}")
        able = model.adapter.attention_blocks
        if self.experiment.block % count not in able:
            raise InputError(f"segment: {model.name} has attention maps in {counted_blocks(able)} only")
        grid = model.adapter.patch_grid(model.image_size)
        if any(side % cells for side, cells in zip(model.image_size, grid, strict=True)):
            raise InputError(f"segment: the {grid[0]}x{grid[1]} patches of {model.name} do not fill its input")

    def conditions(self, model: Model) -> Sequence[SegmentCondition]:
        """Return token x threshold x head, the oracle and the mean among them, and the masks without a network."""
        block = self.experiment.block % model.adapter.n_blocks
        names = [*map(str, range(model.n_heads(block))), MEAN, BEST]
        return [
            *(
                SegmentCondition(token, block, threshold, head, self.experiment.protocol)
                for token in _tokens(model)
                for threshold in self.experiment.thresholds
                for head in names
            ),
            *(SegmentCondition("", -1, 1.0, name, self.experiment.protocol) for name in (EVERYTHING, CENTRE)),
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
        planes = [(plane, _objects(plane)) for plane in batch.regions.unbind(1)]
        queued: list[tuple[dict[str, Tensor], list[dict[str, Tensor]]]] = []
        for token, threshold in groups:
            masks = {name: mask for name, mask in _without_network(batch.images).items() if not token}
            if token:
                masks = head_masks(attention[token].nan_to_num(0, 0, 0), threshold)
            finite = {"finite": attention[token].flatten(1).isfinite().all(dim=1)} if token else {}
            queued.append((masks, [finite, *(self._overlaps(masks, *plane) for plane in planes)]))
        # everything is queued: from here on the processor may wait, once
        arrays = iter(read_back([columns for _, group in queued for columns in group]))
        for ((token, _), conditions), (masks, group) in zip(groups.items(), queued, strict=True):
            finite, *overlaps = (next(arrays) for _ in group)
            columns = [_means(masks, overlap, len(batch)) for overlap in overlaps]
            known = finite["finite"] if token else np.ones(len(batch), dtype=bool)
            for condition in conditions:
                values = {
                    name: np.where(known, column[condition.head], np.nan)
                    for name, column in zip(names, columns, strict=True)
                }
                yield Records(condition, values | {"finite": known})

    def _compare(self, masks: dict[str, Tensor], regions: Tensor) -> dict[str, np.ndarray]:
        """Return per mask ``(B,)``, the mean over an image's objects; NaN where there is none."""
        (overlaps,) = read_back([self._overlaps(masks, regions, _objects(regions))])
        return _means(masks, overlaps, len(regions))

    def _overlaps(self, masks: dict[str, Tensor], regions: Tensor, objects: list[list[int]]) -> dict[str, Tensor]:
        """Return the Jaccard index of masks x objects, under the number of each image that has an object."""
        found: dict[str, Tensor] = {}
        height, width = regions.shape[-2:]
        for row, (plane, numbers) in enumerate(zip(regions, objects, strict=True)):
            if numbers:
                stacked = torch.stack([_enlarged(mask[row], height, width) for mask in masks.values()])
                ignore = None if self.experiment.protocol == "authors" else plane == VOID
                wanted = torch.stack([plane == number for number in numbers])
                found[str(row)] = jaccard(stacked[:, None], wanted[None], ignore)
        return found

    def examples(self, model: Model, batch: Batch) -> Iterator[ExampleImage]:
        """Yield some images with the outlines of their objects, and the masks of the best head and of the mean."""
        assert batch.regions is not None
        attention = self._measured(model, batch.images)
        part = batch.part(0, _EXAMPLES)
        assert part.regions is not None
        if attention is None:
            attention = self._attention(model, part.images)
        threshold = min(self.experiment.thresholds, key=lambda value: abs(value - 0.9))
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
        block = self.experiment.block % adapter.n_blocks
        rows, columns = adapter.patch_grid((images.shape[-2], images.shape[-1]))
        first = len(adapter.prefix_tokens)
        step = max(1, _MOST_CELLS // (16 * (rows * columns + first) ** 2))
        parts: dict[str, list[Tensor]] = {token: [] for token in _tokens(model)}
        for start in range(0, len(images), step):
            maps = model.prefix_attention(images[start : start + step], block)
            for token, found in parts.items():
                seen: Any = maps[:, :, adapter.prefix_tokens.index(token), first:]  # whose unflatten() has no type
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
    masks = {str(head): mass_mask(attention[:, head], threshold, check=False) for head in range(attention.shape[1])}
    forbid(improper(attention), IMPROPER)
    return masks | {MEAN: mass_mask(double(attention).mean(dim=1), threshold, check=False).to(attention.device)}


def _objects(regions: Tensor) -> list[list[int]]:
    """Return the numbers of the objects of each image, ascending."""
    there = torch.zeros(len(regions), 256, dtype=torch.bool, device=regions.device)
    there.scatter_(1, regions.flatten(1).long(), True)
    there[:, 0] = there[:, VOID] = False
    (read,) = read_back([{"there": there}])
    return [np.flatnonzero(row).tolist() for row in read["there"]]


def _means(masks: dict[str, Tensor], overlaps: dict[str, np.ndarray], n: int) -> dict[str, np.ndarray]:
    """Return the mean over the objects of each image, by mask and by the best head for each object."""
    found = {name: np.full(n, np.nan) for name in (*masks, BEST)}
    heads = [place for place, name in enumerate(masks) if name.isdecimal()]
    for row, overlap in overlaps.items():
        for name, values in zip(masks, overlap, strict=True):
            found[name][int(row)] = values.mean()
        if heads:
            found[BEST][int(row)] = overlap[heads].max(axis=0).mean()
    return found


def _tokens(model: Model) -> list[str]:
    return [name for name in model.adapter.prefix_tokens if name in ("class", *DISTILLATION_NAMES)]


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
