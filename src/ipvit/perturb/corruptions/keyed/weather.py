"""Snow, frost and fog on whole batches, as :mod:`ipvit.perturb.corruptions.weather` makes them of one image."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ipvit.perturb.corruptions.arrays import level, zoomed
from ipvit.perturb.corruptions.frost_textures import read_textures, textures
from ipvit.perturb.corruptions.keyed.displacement import along_lines
from ipvit.perturb.corruptions.keyed.draws import Draws
from ipvit.perturb.corruptions.keyed.noise import normals
from ipvit.perturb.corruptions.tensor_versions import as_units, unit_bytes
from ipvit.perturb.corruptions.weather import FOG, FROST, SNOW, SNOW_ANGLES, cover
from ipvit.perturb.tensors import from_numpy


def snow(images: Tensor, severity: int, draws: Draws) -> Tensor:
    """Whiten the images and add flakes, see :func:`ipvit.perturb.corruptions.snow`."""
    mean, deviation, factor, threshold, radius, sigma, share = level(SNOW, severity)
    height, width = images.shape[-2:]
    noise = _normals(images.device).index_select(0, draws.sixteens(height, width).flatten())
    flakes = _enlarged(noise.view(-1, height, width).mul_(deviation).add_(mean), factor)
    flakes = unit_bytes(flakes.masked_fill_(flakes < threshold, 0))
    flakes = as_units(along_lines(flakes[:, None], int(radius), sigma, SNOW_ANGLES, draws))
    values = as_units(images)
    red, green, blue = values.unbind(dim=1)
    grey = (red * 0.299).add_(green * 0.587).add_(blue * 0.114).mul_(1.5).add_(0.5)
    whitened = torch.maximum(values, grey[:, None]).mul_(1 - share)
    return unit_bytes(values.mul_(share).add_(whitened).add_(flakes + flakes.flip(-1, -2)))


@lru_cache(maxsize=4)
def _normals(device: torch.device) -> Tensor:
    return from_numpy(normals()).to(device, non_blocking=True)


def _enlarged(fields: Tensor, factor: float) -> Tensor:
    """Return the middle of fields ``(B, H, W)`` enlarged, see :func:`ipvit.perturb.corruptions.arrays.zoom`."""
    for dim in (1, 2):
        first, second, of_first, of_second = _neighbours(fields.shape[dim], factor, fields.device)
        shape = (-1, 1) if dim == 1 else (-1,)
        nearer = fields.index_select(dim, first).mul_(of_first.view(shape))
        fields = nearer.add_(fields.index_select(dim, second).mul_(of_second.view(shape)))
    return fields


@lru_cache(maxsize=32)
def _neighbours(side: int, factor: float, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return which two values each of the new ones lies between, and their weights, ``(side,)`` each."""
    top, inside, enlarged, above = zoomed(side, factor)
    place = np.arange(above, above + side) * ((inside - 1) / max(1, enlarged - 1))
    first = np.minimum(place.astype(np.int64), inside - 1)
    share = np.clip(place - first, 0, 1)
    parts = (top + first, top + np.minimum(first + 1, inside - 1), 1 - share, share)
    first, second, of_first, of_second = (from_numpy(part).to(device, non_blocking=True) for part in parts)
    return first, second, of_first, of_second


def frost(folder: str | None = None) -> Callable[[Tensor, int, Draws], Tensor]:
    """Return what adds a part of a picture of ice crystals, see :func:`ipvit.perturb.corruptions.frost`.

    Args:
        folder: where the original's pictures are; drawn ones by default.
    """

    def corrupted(images: Tensor, severity: int, draws: Draws) -> Tensor:
        of_image, of_ice = level(FROST, severity)
        size = images.shape[-2:]
        ice = _frozen(folder, size, images.device)
        where = draws.few(3)
        chosen = (where[:, 0] * len(ice.sizes)).astype(np.int64)
        top, left = ((where[:, 1:] * (ice.sizes[chosen] - size)).astype(np.int64)).T
        widths = ice.sizes[chosen, 1]
        corners = np.stack([ice.begins[chosen] + top * widths + left, widths])
        begins, wide = from_numpy(corners).to(images.device, non_blocking=True)[..., None]
        rows = begins + wide * torch.arange(size[0], device=images.device)
        places = rows[:, :, None] + torch.arange(size[1], device=images.device)
        crystals = ice.pixels.index_select(1, places.flatten()).view(3, *places.shape).transpose(0, 1)
        mixed = (images.to(torch.float64) * of_image).add_(crystals.to(torch.float64).mul_(of_ice))
        return mixed.clamp_(0, 255).to(torch.uint8)

    return corrupted


class _Ice:
    """Pictures of ice, each at least as large as the images, one behind the other."""

    def __init__(self, pictures: list[np.ndarray], device: torch.device) -> None:
        self.sizes = np.array([picture.shape[:2] for picture in pictures])
        """Heights and widths, ``(n, 2)``."""
        self.begins = np.cumsum([0, *(picture.shape[0] * picture.shape[1] for picture in pictures[:-1])])
        flat = np.concatenate([picture.reshape(-1, 3).T for picture in pictures], axis=1)
        self.pixels = from_numpy(np.ascontiguousarray(flat)).to(device, non_blocking=True)
        """``(3, pixels)`` uint8."""


@lru_cache(maxsize=4)
def _frozen(folder: str | None, size: tuple[int, int], device: torch.device) -> _Ice:
    pictures = textures() if folder is None else read_textures(str(Path(folder)))
    return _Ice([cover(picture, size) for picture in pictures], device)


def fog(images: Tensor, severity: int, draws: Draws) -> Tensor:
    """Add clouds and darken, see :func:`ipvit.perturb.corruptions.fog`."""
    strength, fall = level(FOG, severity)
    height, width = images.shape[-2:]
    values = as_units(images)
    brightest = values.amax(dim=(1, 2, 3), keepdim=True)
    clouds = _fractal(max(height, width), fall, draws)[:, None, :height, :width].mul(strength)
    return unit_bytes(values.add_(clouds).mul_(brightest).div_(brightest + strength))


def _fractal(side: int, fall: float, draws: Draws) -> Tensor:
    """Return diamond-square height maps on a torus, in [0, 1], of at least ``side`` pixels a side: ``(B, s, s)``."""
    wanted = 1 << max(1, side - 1).bit_length()
    numbers = draws.fractions(wanted * wanted - 1)
    heights, amplitude, taken = numbers.new_zeros(len(numbers), 1, 1), 100.0, 0

    def between(four: Tensor) -> Tensor:
        nonlocal taken
        n = four.shape[1] * four.shape[2]
        drawn = numbers[:, taken : taken + n].view_as(four).mul(2 * amplitude).sub_(amplitude)
        taken += n
        return four.mul_(0.25).add_(drawn.mul_(amplitude))

    while heights.shape[1] < wanted:
        pairs = heights + heights.roll(-1, dims=1)
        middle = between(pairs + pairs.roll(-1, dims=2))
        finer = numbers.new_empty(len(numbers), 2 * heights.shape[1], 2 * heights.shape[2])
        finer[:, ::2, ::2] = heights
        finer[:, 1::2, 1::2] = middle
        finer[:, ::2, 1::2] = between((middle + middle.roll(1, dims=1)).add_(heights + heights.roll(-1, dims=2)))
        finer[:, 1::2, ::2] = between((middle + middle.roll(1, dims=2)).add_(pairs))
        heights, amplitude = finer, amplitude / fall
    heights = heights - heights.amin(dim=(1, 2), keepdim=True)
    return heights.div_(heights.amax(dim=(1, 2), keepdim=True))
