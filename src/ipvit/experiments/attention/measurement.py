"""Measuring where attention goes, of whole images and of those that lost something."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ipvit.core.queued.readback import read_back
from ipvit.errors import InputError
from ipvit.experiments.attention.experiment import Attention, AttentionCondition, PlacedCondition
from ipvit.experiments.attention.high_norm import HIGH_NORM
from ipvit.experiments.base import Batch, ExampleImage, Measurement, Records
from ipvit.experiments.grids import check_equal_cells
from ipvit.experiments.places import WHOLE, at_place, check_scale
from ipvit.metrics.attention import attention_distance, norm_ratios
from ipvit.models.adapters.base import counted_blocks
from ipvit.models.model import Model
from ipvit.perturb.on_device import random_keep
from ipvit.perturb.patchdrop import n_dropped, patchdrop
from ipvit.perturb.seeding import keys


class AttentionMeasurement(Measurement):
    """Attention maps in one run.

    Raises:
        InputError: a model has no class token or no such block, its patches do not fill the image, or nothing would be
            left of the shrunk image.
    """

    def __init__(self, experiment: Attention, models: Sequence[Model]) -> None:
        self.experiment = experiment
        for model in models:
            self._check(model)

    def _check(self, model: Model) -> None:
        if "class" not in model.adapter.prefix_tokens:
            raise InputError(f"attention: {model.name} has no class token")
        if max(self.experiment.levels) > 0:
            check_equal_cells("x".join(map(str, model.adapter.patch_grid(model.image_size))), model)
        if self.experiment.corners:
            check_scale(self.experiment.name, self.experiment.scale, model)
        count = model.adapter.n_blocks
        wrong = [block for block in self.experiment.blocks if not 0 <= block < count]
        if wrong:
            raise InputError(f"attention: {model.name} has blocks 0 to {count - 1}, not {wrong[0]}")
        able = model.adapter.attention_blocks
        if without := [block for block in self.experiment.blocks if block not in able]:
            raise InputError(f"attention: {model.name} has maps in {counted_blocks(able)}, not in block {without[0]}")

    def conditions(self, model: Model) -> Sequence[AttentionCondition]:
        """Return level x block x head, then place x block x head."""
        places = [(block, head) for block in self._blocks(model) for head in range(model.n_heads(block))]
        return [
            *(AttentionCondition(level, *place) for level in self.experiment.levels for place in places),
            *(
                PlacedCondition(0.0, *place, corner, self.experiment.scale)
                for corner in self.experiment.corners
                for place in places
            ),
        ]

    def measure(self, model: Model, batch: Batch) -> Iterator[Records]:
        """Keep each image's map (as float16 bytes), its mean attention distance in pixels, and norms of its patches.

        What is of a block and not of a head stands in the records of all its heads, but for the patches' norms, which
        those of the first head hold.
        """
        by_image: dict[tuple[float, str], list[AttentionCondition]] = {}
        for condition in batch.conditions:
            place = condition.place if isinstance(condition, PlacedCondition) else WHOLE
            by_image.setdefault((condition.information_loss, place), []).append(condition)
        grid = model.adapter.patch_grid(model.image_size)
        prefix_tokens = model.adapter.prefix_tokens
        row, first = prefix_tokens.index("class"), len(prefix_tokens)
        queued: list[tuple[AttentionCondition, dict[str, Tensor]]] = []
        for (level, place), conditions in by_image.items():
            images = self._altered(batch.images, grid, level, place, batch.seed)
            blocks = sorted({condition.block for condition in conditions})
            maps = model.attention(images, blocks)
            outlying = _outlying(model, images, blocks)
            cover = None
            if place != WHOLE:  # share of every patch that shows the image
                canvas = self._altered(torch.ones_like(images[:1, :1]), grid, level, place, batch.seed)
                cover = F.adaptive_avg_pool2d(canvas, grid).flatten()
            for condition in conditions:
                whole = maps[condition.block][:, condition.head]
                seen = whole[:, row, first:]
                distance = attention_distance(whole[:, first:, first:], grid, _patch_size(model, grid))
                # where only the class token attends (CaiT, XCiT), patches have no distance and no share
                alone = (whole[:, first:, first:].diagonal(dim1=-2, dim2=-1) == 1).all(dim=-1)
                columns = {
                    "map": seen.clone(),  # a copy, which does not keep the whole map
                    "distance": distance.masked_fill(alone, float("nan")),
                    "prefix_share": whole[:, first:, :first].sum(dim=-1).mean(dim=-1).masked_fill(alone, float("nan")),
                    **outlying[condition.block],
                }
                if cover is not None:
                    columns["inside"] = (seen * cover).sum(dim=1) / seen.sum(dim=1)
                queued.append((condition, columns))
        arrays = read_back([columns for _, columns in queued])
        rows = np.full(len(batch), grid[0], np.int32)
        for (condition, _), columns in zip(queued, arrays, strict=True):
            seen, norms = _as_bytes(columns.pop("map")), columns.pop("norms")
            of_block = _as_bytes(norms if condition.head == 0 else norms[:, :0])
            yield Records(condition, {"map": seen, "rows": rows, "norms": of_block} | columns)

    def examples(self, model: Model, batch: Batch) -> Iterator[ExampleImage]:
        """Yield the first image under every mask."""
        grid = model.adapter.patch_grid(model.image_size)
        for level in self.experiment.levels:
            image = self._altered(batch.images[:1], grid, level, WHOLE, batch.seed)[0]
            yield ExampleImage(f"{100 * level:.0f} % of the patches dropped", image)
        for corner in self.experiment.corners:
            yield ExampleImage(corner, self._altered(batch.images[:1], grid, 0, corner, batch.seed)[0])

    def _blocks(self, model: Model) -> list[int]:
        if self.experiment.blocks:
            return sorted(set(self.experiment.blocks))
        able = model.adapter.attention_blocks
        count = len(able)
        middle = count // 2
        places = {0, min(1, count - 1), max(middle - 1, 0), middle, max(count - 2, 0), count - 1}
        return [able[place] for place in sorted(places)]

    def _altered(self, images: Tensor, grid: tuple[int, int], level: float, place: str, seed: int) -> Tensor:
        if place != WHOLE:
            return at_place(images, place, self.experiment.scale)
        if level == 0:
            return images
        key = keys(["every image"], seed, self.experiment.name, level)
        return patchdrop(images, random_keep(key, grid, n_dropped(level, grid[0] * grid[1]), images.device)[0])


def _outlying(model: Model, images: Tensor, blocks: Sequence[int]) -> dict[int, dict[str, Tensor]]:
    """Return by block each patch's norm over the median, and the columns that follow from these."""
    if not model.can("tokens"):
        absent = torch.full((len(images),), float("nan"), device=images.device)
        nothing = absent.new_empty(len(images), 0)
        unknown = {"norm_ratio": absent, "high_patches": absent, "norms": nothing}
        return dict.fromkeys(blocks, unknown)
    found: dict[int, dict[str, Tensor]] = {}
    for block, tokens in model.tokens(images, blocks, norm=False).items():
        ratios = norm_ratios(tokens.patches).float()
        unknown = ~ratios.isfinite().all(dim=1)
        found[block] = {
            "norm_ratio": ratios.amax(dim=1).masked_fill(unknown, float("nan")),
            "high_patches": (ratios > HIGH_NORM).sum(dim=1).float().masked_fill(unknown, float("nan")),
            "norms": ratios,
        }
    return found


def _as_bytes(vectors: np.ndarray) -> np.ndarray:
    """Return each row of ``(B, N)`` as the bytes of float16."""
    return np.array([vector.tobytes() for vector in vectors.astype(np.float16)], dtype=object)


def _patch_size(model: Model, grid: tuple[int, int]) -> tuple[float, float]:
    height, width = model.image_size
    return height / grid[0], width / grid[1]
