"""The layout of a picture without its textures: bilateral texture filtering (Cho et al. 2014).

Around every pixel the patch that crosses the fewest outlines is looked for: within a texture many small gradients make
up a patch's contrast, at an outline one large gradient does. The mean of that patch guides an edge-preserving filter.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ipvit.perturb.tensors import from_numpy

_WORKING_SIZE = 112
"""Side in pixels that patches are compared at; larger pictures are shrunk for it."""

_ROUNDS = 4
_EDGE = 0.07
"""Colour difference that counts as an edge, in [0, 1]."""


def remove_texture(image: Tensor, scale: float) -> Tensor:
    """Return a picture's layout: textures up to a size become flat, outlines stay where they are.

    Args:
        image: ``(3, H, W)`` in [0, 1].
        scale: size of the textures, as a share of the shorter side.

    Returns:
        ``(3, H, W)`` in [0, 1].
    """
    if not 0 < scale <= 0.5:
        raise ValueError(f"the scale of the textures lies in (0, 0.5], not {scale}")
    height, width = image.shape[-2:]
    shorter = min(height, width)
    shrink = min(1.0, _WORKING_SIZE / shorter)
    working = (round(height * shrink), round(width * shrink))
    patch = 2 * math.ceil((scale * min(working) - 1) / 2) + 1
    layout = image.float()
    for _ in range(_ROUNDS):
        guide = F.interpolate(layout[None], working, mode="area") if shrink < 1 else layout[None]
        guide = _clearest_patch(guide, max(3, patch))
        if shrink < 1:
            guide = F.interpolate(guide, (height, width), mode="bilinear", align_corners=False)
        layout = _domain_transform(layout, guide[0], scale * shorter)
    return layout.clamp(0, 1)


def _clearest_patch(image: Tensor, patch: int) -> Tensor:
    """Return, for each pixel of ``(1, 3, H, W)``, the mean colour of the patch around it that crosses no outline."""
    width, margin = image.shape[-1], patch // 2
    across, down = F.pad(image.diff(dim=3), (0, 1)), F.pad(image.diff(dim=2), (0, 0, 0, 1))
    gradient = (across.square() + down.square()).sum(1, keepdim=True).sqrt()
    mean = _mean(image, patch)
    contrast = (_largest(image, patch) + _largest(-image, patch)).sum(1, keepdim=True)
    outline = contrast * _largest(gradient, patch) / (_mean(gradient, patch) * patch**2 + 1e-3)
    padded = F.pad(-outline, (margin,) * 4, value=-math.inf)
    _, place = F.max_pool2d(padded, patch, stride=1, return_indices=True)
    padded_width = width + 2 * margin
    chosen = ((place // padded_width - margin) * width + place % padded_width - margin).flatten()
    shifted = mean.flatten(2)[..., chosen].view_as(image)
    # where no patch is clearer than the pixel's own, the own one is kept: shifting would only make blocks
    gain = torch.tanh(2.5 * patch * (outline - outline.flatten()[chosen].view_as(outline)))
    return mean + gain * (shifted - mean)


def _mean(planes: Tensor, patch: int) -> Tensor:
    return F.avg_pool2d(F.pad(planes, (patch // 2,) * 4, mode="replicate"), patch, stride=1)


def _largest(planes: Tensor, patch: int) -> Tensor:
    return F.max_pool2d(F.pad(planes, (patch // 2,) * 4, mode="replicate"), patch, stride=1)


def _domain_transform(image: Tensor, guide: Tensor, sigma: float, rounds: int = 2) -> Tensor:
    """Smooth ``(3, H, W)`` within the guide's edges: the recursive filter of Gastal & Oliveira (2011)."""
    edges = guide.numpy()
    across = 1 + sigma / _EDGE * np.abs(np.diff(edges, axis=2)).sum(axis=0)
    down = 1 + sigma / _EDGE * np.abs(np.diff(edges, axis=1)).sum(axis=0)
    lines = image.numpy().transpose(2, 0, 1)  # columns first
    for index in range(rounds):
        reach = sigma * math.sqrt(3) * 2 ** (rounds - index - 1) / math.sqrt(4**rounds - 1)
        feedback = math.exp(-math.sqrt(2) / reach)
        lines = _recurse(lines, (feedback**across).T)
        lines = _recurse(lines.transpose(2, 1, 0), feedback**down)
        lines = lines.transpose(2, 1, 0)
    return from_numpy(np.ascontiguousarray(lines.transpose(1, 2, 0)))


def _recurse(lines: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Let each line of ``(N, 3, M)`` take from the line before it, then from the one behind; weights ``(N - 1, M)``."""
    lines = np.array(lines, dtype=np.float32, order="C")
    for i in range(1, len(lines)):
        lines[i] += weights[i - 1] * (lines[i - 1] - lines[i])
    for i in range(len(lines) - 2, -1, -1):
        lines[i] += weights[i] * (lines[i + 1] - lines[i])
    return lines
