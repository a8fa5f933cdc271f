"""Measuring how well attention finds the objects of an image."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ipvit.data.loader import VOID
from ipvit.errors import InputError
from ipvit.experiments.base import Batch, ExampleImage, Measurement, Records
from ipvit.experiments.segment.experiment import BEST, CENTRE, EVERYTHING, MEAN, Segment, SegmentCondition
from ipvit.experiments.segment.overlays import outlined
from ipvit.metrics.exact import double
from ipvit.metrics.jaccard import jaccard
from ipvit.models.adapters.base import DISTILLATION_NAMES, counted_blocks
from ipvit.models.model import Model
from ipvit.perturb.salience import mass_mask

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
            plane: Any = numbers  # whose unique() has no type
            objects = [numbers == i for i in plane.unique().tolist() if i not in (0, VOID)]
            if not objects:
                continue
            height, width = numbers.shape
            stacked = torch.stack([_enlarged(mask[row], height, width) for mask in masks.values()])
            ignore = None if self.experiment.protocol == "authors" else numbers == VOID
            overlap = jaccard(stacked[:, None], torch.stack(objects)[None], ignore).cpu().numpy()  # masks x objects
            for name, values in zip(masks, overlap, strict=True):
                found[name][row] = values.mean()
            if heads:
                found[BEST][row] = overlap[[list(masks).index(name) for name in heads]].max(axis=0).mean()
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
    masks = {str(head): mass_mask(attention[:, head], threshold) for head in range(attention.shape[1])}
    return masks | {MEAN: mass_mask(double(attention).mean(dim=1), threshold).to(attention.device)}


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
