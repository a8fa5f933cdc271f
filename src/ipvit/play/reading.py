"""What is read from a network: its five likeliest classes, and where it looks."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ipvit.errors import InputError
from ipvit.metrics.jaccard import jaccard
from ipvit.models.capabilities import DISTILLATION_NAMES
from ipvit.models.model import Model
from ipvit.perturb.salience import mass_mask
from ipvit.play.names import readable

MEAN = -1
"""The head that is the mean of all heads."""

PATCHES = "patches"
"""Attention from all patches, averaged, where there is no token for the whole image."""

MOST = 5


def top(logits: Tensor, before: Tensor, model: Model, right: Collection[int]) -> list[dict[str, Any]]:
    """Return the likeliest classes, the first one first, with their probability now and before.

    Args:
        logits: ``(classes,)``.
        before: ``(classes,)``, of the untouched photo.
        model: whose outputs they are.
        right: which of them are right.

    Raises:
        InputError: the network answers with something that is no number.
    """
    if not bool(torch.isfinite(logits).all()):
        raise InputError(f"{model.name} answers with NaN or infinity")
    now, then = logits.softmax(dim=0), before.softmax(dim=0)
    values, places = now.topk(min(MOST, len(now)))
    return [
        {
            "name": class_name(model, place),
            "probability": round(value, 4),
            "before": round(float(then[place]), 4),
            "right": place in right,
        }
        for value, place in zip(values.tolist(), places.tolist(), strict=True)
    ]


def class_name(model: Model, output: int) -> str:
    """Return the name of an output in words."""
    return f"output {output}" if model.classes is None else readable(model.classes[output])


def tokens(model: Model) -> list[str]:
    """Return whose attention can be shown; nothing for a network without attention over the whole image."""
    if not model.can("attention"):
        return []
    found = [name for name in model.adapter.prefix_tokens if name in ("class", *DISTILLATION_NAMES)]
    return found or [PATCHES]


def attention_to_patches(model: Model, images: Tensor, block: int, token: str) -> Tensor:
    """Return the attention from a token, or from all patches on average, to the patches.

    Args:
        model: the network.
        images: ``(B, 3, H, W)`` in [0, 1].
        block: whose attention.
        token: one of :func:`tokens`.

    Returns:
        ``(B, heads, rows, columns)`` float64, on the CPU.

    Raises:
        InputError: there is no such block or token.
    """
    if token not in tokens(model):
        raise InputError(f"{model.name} has no {token} token with attention to the patches")
    if block >= model.adapter.n_blocks:
        raise InputError(f"{model.name} has blocks 0 to {model.adapter.n_blocks - 1}, no block {block}")
    prefix_tokens = model.adapter.prefix_tokens
    maps = model.attention(images, [block])[block].cpu().double()  # not every device knows float64
    seen = maps[:, :, len(prefix_tokens) :].mean(dim=2) if token == PATCHES else maps[:, :, prefix_tokens.index(token)]
    rows, columns = model.adapter.patch_grid((images.shape[-2], images.shape[-1]))
    return seen[..., len(prefix_tokens) :].unflatten(-1, (rows, columns))


@dataclasses.dataclass(frozen=True)
class AttentionView:
    """One map of attention and the mask made of it.

    Attributes:
        weights: ``(rows, columns)``, non-negative.
        mask: bool ``(rows, columns)``: the fewest patches that hold a share of the attention.
        heads: number of heads of the block.
    """

    weights: Tensor
    mask: Tensor
    heads: int

    def overlap(self, truth: tuple[Tensor, Tensor] | None) -> float | None:
        """Return the mask's Jaccard index with the object, from bool ``(H, W)`` object and pixels not to count."""
        if truth is None:
            return None
        region, void = truth
        mask = F.interpolate(self.mask[None, None].float(), size=region.shape, mode="nearest-exact")[0, 0] > 0
        value = float(jaccard(mask, region, void))
        return None if value != value else round(value, 4)


def attend(model: Model, images: Tensor, block: int, head: int, token: str, threshold: float) -> AttentionView:
    """Return one head's attention (or the mean of all, :data:`MEAN`) on one image ``(1, 3, H, W)``, and its mask."""
    maps = attention_to_patches(model, images, block, token)[0]
    if head >= len(maps):
        raise InputError(f"block {block} of {model.name} has heads 0 to {len(maps) - 1}, no head {head}")
    weights = maps.mean(dim=0) if head == MEAN else maps[head]
    return AttentionView(weights, mass_mask(weights.unsqueeze(0), threshold)[0], len(maps))
