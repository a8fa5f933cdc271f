"""PatchDrop: replace some cells of a grid over the image (Naseer et al. 2021, section 3.1).

All functions work on images in [0, 1], before normalisation. A mask says which cells are *kept*. Where the grid does
not divide the image, cells differ by one pixel, see :mod:`ipvit.perturb.cells`.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ipvit.perturb.cells import pixel_mask
from ipvit.perturb.choices import Fill
from ipvit.perturb.seeding import random_words
from ipvit.perturb.tensor_words import uniform


def n_dropped(information_loss: float, n_cells: int) -> int:
    """Return how many of ``n_cells`` cells are dropped at an information loss in [0, 1].

    The paper's code rounds down: ``floor(k * 196 / 10)`` for level ``k`` (0, 19, 39, 58, ... of 196 cells).
    """
    if not 0 <= information_loss <= 1:
        raise ValueError(f"information loss must lie in [0, 1], not {information_loss}")
    return math.floor(information_loss * n_cells + 1e-9)  # 0.3 * 10 is 2.9999999999999996 in floating point


def random_keep(key: np.ndarray, grid: tuple[int, int], n_drop: int) -> np.ndarray:
    """Return masks that drop ``n_drop`` cells at random, one mask per key.

    The cells of one key are dropped in a fixed order, so with the same keys a larger ``n_drop`` drops the same cells
    and more (nested levels).

    Args:
        key: ``(B,)`` keys from :func:`ipvit.perturb.seeding.keys`.
        grid: rows and columns of the grid.
        n_drop: cells to drop per image.

    Returns:
        ``(B, rows, columns)`` boolean array, True where a cell is kept.
    """
    rows, columns = grid
    if not 0 <= n_drop <= rows * columns:
        raise ValueError(f"cannot drop {n_drop} cells of a grid of {rows}x{columns}")
    keep = np.ones((len(key), rows * columns), dtype=bool)
    if n_drop:
        words = random_words(key, rows * columns)
        # the cells with the smallest words: a partition, since sorting every pixel of a PixelDrop would take long
        np.put_along_axis(keep, np.argpartition(words, n_drop - 1, axis=1)[:, :n_drop], False, axis=1)
    return keep.reshape(-1, rows, columns)


def bernoulli_keep(key: np.ndarray, grid: tuple[int, int], rate: float) -> np.ndarray:
    """Return masks that drop every cell with a probability, one mask per key: how many are lost is chance.

    Args:
        key: ``(B,)`` keys from :func:`ipvit.perturb.seeding.keys`.
        grid: rows and columns of the grid.
        rate: probability in [0, 1] that a cell is dropped; with the same keys a larger one drops the same cells and
            more.

    Returns:
        ``(B, rows, columns)`` boolean array, True where a cell is kept.
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"a probability lies in [0, 1], not {rate}")
    rows, columns = grid
    uniform = (random_words(key, rows * columns) >> np.uint64(11)) * 2.0**-53  # in [0, 1)
    return (uniform >= rate).reshape(-1, rows, columns)


def shift(mask: Tensor, offset: tuple[int, int]) -> Tensor:
    """Move pixel masks ``(B, 1, H, W)`` down and right by ``offset`` pixels, as the paper's appendix A.1 does.

    What leaves the image is lost, and what comes in from outside is kept, so that fewer pixels are dropped than the
    grid's share says.
    """
    down, right = offset
    height, width = mask.shape[-2:]
    if not (0 <= down < height and 0 <= right < width):
        raise ValueError(f"an offset of {down}, {right} pixels leaves an image of {height}x{width}")
    moved = torch.ones_like(mask)
    moved[..., down:, right:] = mask[..., : height - down, : width - right]
    return moved


def patchdrop(images: Tensor, keep: Tensor | np.ndarray, fill: Tensor | float = 0.0) -> Tensor:
    """Replace the cells that are not kept.

    Args:
        images: ``(B, 3, H, W)`` in [0, 1].
        keep: ``(B, rows, columns)`` boolean, or ``(rows, columns)`` for one mask on all images; True is kept. Any grid
            with at most one cell a pixel.
        fill: what dropped pixels become: a value (0 is black, the paper's choice) or a tensor that broadcasts to
            ``images``, for example from :func:`fill_content`.

    Returns:
        ``(B, 3, H, W)`` in [0, 1]; a new tensor.

    >>> images = torch.ones(1, 3, 4, 4)
    >>> patchdrop(images, torch.tensor([[True, False], [True, True]])).mean().item()
    0.75
    """
    keep = torch.as_tensor(keep, device=images.device)
    if keep.ndim == 2:
        keep = keep.unsqueeze(0)
    return replace(images, pixel_mask(keep, (images.shape[-2], images.shape[-1])), fill)


def replace(images: Tensor, mask: Tensor, fill: Tensor | float = 0.0) -> Tensor:
    """Replace the pixels where ``mask``, ``(B, 1, H, W)`` boolean, is False; see :func:`patchdrop`."""
    if isinstance(fill, Tensor):
        return torch.where(mask, images, fill.to(images))
    if fill == 0:
        return images * mask
    return torch.where(mask, images, torch.as_tensor(fill, dtype=images.dtype, device=images.device))


def fill_content(images: Tensor, fill: Fill, key: np.ndarray, sigma: float | None = None) -> Tensor | float:
    """Return what dropped pixels are replaced with.

    Args:
        images: ``(B, 3, H, W)`` in [0, 1].
        fill: ``black`` is 0; ``mean`` the image's own mean colour; ``noise`` uniform in [0, 1] per pixel and channel;
            ``blur`` the image under a Gaussian.
        key: ``(B,)`` keys; used by ``noise``.
        sigma: standard deviation of the blur in pixels; a sixteenth of the image's height by default.
    """
    if fill == "black":
        return 0.0
    if fill == "mean":
        return images.mean(dim=(-2, -1), keepdim=True)
    if fill == "noise":
        return uniform(key, tuple(images.shape[1:]), images.device).to(images)
    if fill == "blur":
        return gaussian_blur(images, sigma if sigma is not None else images.shape[-2] / 16)
    raise ValueError(f"unknown fill {fill!r}; known: black, mean, noise, blur")


def gaussian_blur(images: Tensor, sigma: float) -> Tensor:
    """Blur images ``(B, 3, H, W)`` with a separable Gaussian cut off at three standard deviations, edges repeated."""
    radius = max(1, math.ceil(3 * sigma))
    offsets = torch.arange(-radius, radius + 1, dtype=images.dtype, device=images.device)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    channels = images.shape[1]
    padded = F.pad(images, (radius, radius, radius, radius), mode="replicate")
    rows = F.conv2d(padded, kernel.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
    return F.conv2d(rows, kernel.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels).clamp(0, 1)
