"""Style transfer without a network: a picture's layout in the colours and textures of another.

The content's own textures are removed (:mod:`ipvit.perturb.structure`), its layout is recoloured, and the style's fine
detail is laid over it, seen from another side in each region. Then the statistics are matched scale by scale, over and
over as in texture synthesis (Heeger & Bergen 1995): the mean colour, and in every band finer than a sixteenth of the
side the covariance of the colours. They end a few per cent from the style's, the more the coarser the band, since the
layout and colours outside [0, 1] stand against it. Shape survives, texture does not.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ipvit.perturb.seeding import random_order
from ipvit.perturb.structure import remove_texture
from ipvit.perturb.tensors import from_numpy

_FINEST = 0.7
"""Standard deviation in pixels of the finest Gaussian; each further one is twice as wide."""

_REGIONS = 4
_OUTLINES = 2.0
"""Weight of the layout's own fine detail, its outlines, against the style's."""

_RIDGE = 0.3
_ROUNDS = 5
_CONTRAST = 0.85
"""Standard deviation of the layout, as a share of the style's; where the style has more at that scale, the style's."""

_LIMIT = 3.0
"""Standard deviations that the layout's colours are bent to stay within: a small object would be black or white."""


def transfer_statistics(
    images: Tensor, styles: Tensor, key: np.ndarray, alpha: float = 1.0, texture_scale: float = 0.05
) -> Tensor:
    """Return the images in the colours and textures of the styles.

    Args:
        images: ``(B, 3, H, H)`` in [0, 1], square.
        styles: the same shape, one for each image.
        key: ``(B,)`` keys from :func:`ipvit.perturb.seeding.keys`; they choose how each region sees the style.
        alpha: 1 is the styled image, 0 the image itself, between them a blend of the pixels.
        texture_scale: size of the textures that are removed from the image, as a share of the side.

    Returns:
        ``(B, 3, H, H)`` in [0, 1].
    """
    if images.shape != styles.shape or images.shape[-1] != images.shape[-2]:
        raise ValueError(f"images {tuple(images.shape)} and styles {tuple(styles.shape)} must be squares of one size")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha lies in [0, 1], not {alpha}")
    views = random_order(key, 8)[:, :_REGIONS]
    styled = [
        _transfer(image, style, view.tolist(), texture_scale)
        for image, style, view in zip(images, styles, views, strict=True)
    ]
    return images + alpha * (torch.stack(styled) - images) if styled else images.clone()


def bands(image: Tensor) -> list[Tensor]:
    """Split a picture ``(3, H, W)`` into bands of one octave, fine to coarse; together they are the picture.

    Band ``k`` is the difference of two Gaussians, of 0.7 * 2**(k - 1) and 0.7 * 2**k pixels; the last is what remains.
    """
    rest = image
    found: list[Tensor] = []
    for k in range(_octaves(min(image.shape[-2:]))):
        smooth = _blur(image, _FINEST * 2**k)
        found.append(rest - smooth)
        rest = smooth
    return [*found, rest]


def covariance(plane: Tensor) -> Tensor:
    """Return the covariance of the colours of ``(3, H, W)``: ``(3, 3)`` float64."""
    flat = plane.flatten(1).double()
    flat = flat - flat.mean(dim=1, keepdim=True)
    return flat @ flat.T / flat.shape[1]


def _transfer(image: Tensor, style: Tensor, views: list[int], texture_scale: float) -> Tensor:
    layout = remove_texture(image, texture_scale)
    targets = [covariance(band) for band in bands(style)[:-1]]
    colour = style.mean(dim=(1, 2), keepdim=True)
    *outlines, ground = bands(_recolour(layout, style))
    texture = bands(_patchwork(layout, style, views))[:-1]
    detail = [own + _OUTLINES * edges for own, edges in zip(texture, outlines, strict=True)]
    styled = ground
    for _ in range(_ROUNDS):
        matched = [_match(band, target) for band, target in zip(detail, targets, strict=True)]
        styled = (torch.stack([*matched, ground - ground.mean(dim=(1, 2), keepdim=True)]).sum(dim=0) + colour).clamp(
            0, 1
        )
        *detail, ground = bands(styled)
    return styled


def _octaves(side: int) -> int:
    """Return the number of bands that count as texture: those finer than a sixteenth of the side."""
    return max(1, math.floor(math.log2(side / 16 / _FINEST)) + 1)


def _recolour(layout: Tensor, style: Tensor) -> Tensor:
    """Give the layout colours in the directions and with the contrast of the style's."""
    total, coarse = covariance(style), covariance(bands(style)[-1])
    spread = max(_CONTRAST**2, float(coarse.trace() / total.trace().clamp(min=1e-12)))
    # a style of a single colour would hide the shape: a little light and dark is always left
    wanted = spread * total + 0.03**2 * torch.ones(3, 3, dtype=torch.float64)
    white = _match(layout, torch.eye(3, dtype=torch.float64), ridge=_RIDGE)
    return _match(_LIMIT * torch.tanh(white / _LIMIT), wanted, ridge=_RIDGE)


def _patchwork(layout: Tensor, style: Tensor, views: list[int]) -> Tensor:
    """Return the style, turned and mirrored differently in each region of the layout."""
    pixels = layout.flatten(1).T
    order = pixels.sum(dim=1).argsort(stable=True)
    centres = torch.stack([part.mean(dim=0) for part in pixels[order].tensor_split(len(views))])
    region = torch.cdist(pixels, centres).argmin(dim=1)
    for _ in range(10):  # k-means, from regions of equal size by brightness
        members = torch.nn.functional.one_hot(region, len(views)).to(pixels)
        count = members.sum(dim=0)[:, None]
        centres = torch.where(count > 0, members.T @ pixels / count.clamp(min=1), centres)
        region = torch.cdist(pixels, centres).argmin(dim=1)
    members = torch.nn.functional.one_hot(region, len(views)).to(pixels).T.reshape(len(views), *layout.shape[1:])
    weights = _blur(members, _FINEST * layout.shape[-1] / 128)
    turned = [torch.rot90(style.flip(2) if view >= 4 else style, view % 4, (1, 2)) for view in views]
    return (weights[:, None] * torch.stack(turned)).sum(dim=0)


def _match(plane: Tensor, target: Tensor, ridge: float = 0.0) -> Tensor:
    """Change the colours of ``(3, H, W)`` linearly and as little as possible to a covariance; the mean becomes 0.

    ``ridge``, a share of the variance, keeps directions in which the colours hardly differ from being blown up.
    """
    centred = plane - plane.mean(dim=(1, 2), keepdim=True)
    own = covariance(centred)
    own = own + (ridge * own.trace() / 3 + 1e-9) * torch.eye(3, dtype=torch.float64)
    root, inverse = _power(own, 0.5), _power(own, -0.5)
    change = inverse @ _power(root @ target @ root, 0.5) @ inverse
    return torch.einsum("ij,jhw->ihw", change.to(plane), centred)


def _power(matrix: Tensor, exponent: float) -> Tensor:
    linalg: Any = torch.linalg  # its functions have no types
    values: Tensor
    vectors: Tensor
    values, vectors = linalg.eigh(matrix)
    return vectors * values.clamp(min=1e-12) ** exponent @ vectors.T


def _blur(planes: Tensor, sigma: float) -> Tensor:
    """Blur ``(C, H, W)`` with a Gaussian cut off at three standard deviations, mirrored at the edges."""
    height, width = planes.shape[-2:]
    return _blur_matrix(height, sigma).to(planes) @ planes @ _blur_matrix(width, sigma).to(planes).T


@functools.lru_cache(maxsize=64)
def _blur_matrix(n: int, sigma: float) -> Tensor:
    reach = int(3 * sigma + 0.5)
    offsets = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    matrix = np.zeros((n, n))
    for offset, weight in zip(offsets, weights / weights.sum(), strict=True):
        place = (np.arange(n) + offset) % (2 * n)
        np.add.at(matrix, (np.arange(n), np.where(place < n, place, 2 * n - 1 - place)), weight)
    return from_numpy(matrix.astype(np.float32))
