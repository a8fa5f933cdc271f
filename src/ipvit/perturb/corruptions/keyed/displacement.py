"""Pixels moved on whole batches: glass, motion and elastic, as their namesakes make them of one image."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ipvit.perturb.corruptions.arrays import gaussian_kernel, level, line_offsets, line_weights
from ipvit.perturb.corruptions.blur import GLASS, MOTION, MOTION_ANGLES
from ipvit.perturb.corruptions.digital import elastic_lengths, elastic_points, mirrored_blur
from ipvit.perturb.corruptions.keyed.draws import SIXTEENTHS, Draws
from ipvit.perturb.tensors import from_numpy

_BITS = 22
"""Bits behind the point of the weights of a line: 255 times their sum fits into 31 bits."""

_BLUR_BITS = 20
"""Bits behind the point of a Gaussian's weights, once a direction."""

_FIELD_BITS = 18
"""The same for the elastic field: with its 17 bits, both directions stay whole numbers of float64's 53 bits."""

_BETWEEN_BITS = 11
"""Bits behind the point of a place between pixels: both interpolations stay whole numbers of 63 bits."""

_HOPS = 6
"""A chain of copies is followed for 2^6 pixels; each goes on with a chance of about one half, so none is as long."""


def motion_blur(images: Tensor, severity: int, draws: Draws) -> Tensor:
    """Blur along a line at a random angle, see :func:`ipvit.perturb.corruptions.motion_blur`."""
    radius, sigma = level(MOTION, severity)
    return along_lines(images, radius, sigma, MOTION_ANGLES, draws)


def along_lines(images: Tensor, radius: int, sigma: float, angles: tuple[float, float], draws: Draws) -> Tensor:
    """Blur each image along a line, see :func:`ipvit.perturb.corruptions.arrays.motion_line`.

    Args:
        images: ``(B, C, H, W)`` uint8.
        radius: in pixels.
        sigma: in pixels.
        angles: between which each image's angle is drawn, in degrees.
        draws: of the images.

    Returns:
        ``(B, C, H, W)`` uint8.
    """
    least, most = angles
    drawn = least + (most - least) * draws.few(1)[:, 0]
    down, across = (from_numpy(one).to(images.device, non_blocking=True) for one in line_offsets(radius, drawn))
    height, width = images.shape[-2:]
    rows = (torch.arange(height, device=images.device) + down[..., None]).clamp_(0, height - 1).mul_(width)
    columns = (torch.arange(width, device=images.device) + across[..., None]).clamp_(0, width - 1)
    total = torch.zeros_like(images, dtype=torch.int32)
    for tap, weight in enumerate(_whole(line_weights(radius, sigma), _BITS)):
        places = rows[:, tap, :, None] + columns[:, tap, None, :]
        total.add_(_taken(images, places).to(torch.int32).mul_(weight))
    # cut off after 16 bits are rounded, as ImageMagick's are: half of a 257th is added
    return total.add_(round(2**_BITS * 0.5 / 257)).bitwise_right_shift_(_BITS).to(torch.uint8)


def _taken(images: Tensor, places: Tensor) -> Tensor:
    """Return images ``(B, C, H, W)`` with the pixels of other places, ``(B, H, W)`` int64."""
    index = places.flatten(1)[:, None].expand(-1, images.shape[1], -1)
    return images.flatten(2).gather(2, index).view_as(images)


def _whole(weights: np.ndarray, bits: int) -> list[int]:
    """Return weights of sum 1 as whole numbers of sum ``2**bits``; the largest bears what rounding leaves over."""
    found = np.rint(weights * 2**bits).astype(np.int64)
    found[np.argmax(weights)] += 2**bits - found.sum()
    return found.tolist()


def glass_blur(images: Tensor, severity: int, draws: Draws) -> Tensor:
    """Blur, copy every pixel from a neighbour, and blur, see :func:`ipvit.perturb.corruptions.glass_blur`."""
    sigma, reach, passes = level(GLASS, severity)
    blurred = _blurred(images, sigma)
    height, width = images.shape[-2:]
    rows, columns = max(0, height - 2 * reach), max(0, width - 2 * reach)
    drawn = draws.sixteens(passes, rows, columns, 2).mul_(2 * reach).bitwise_right_shift_(16).sub_(reach)
    moves = drawn.flip(2, 3)  # the original visits pixels from the last to the first
    source = torch.arange(height * width, device=images.device).expand(len(images), -1)
    for number in reversed(range(passes)):  # what the last pass reads, the passes before it have written
        source = _sources(moves[:, number], (height, width), reach).gather(1, source)
    return _blurred(_taken(blurred, source.view(-1, height, width)), sigma)


def _sources(move: Tensor, size: tuple[int, int], reach: int) -> Tensor:
    """Return for every pixel the pixel whose value it holds after one pass of copying, ``(B, H * W)`` int64.

    See the function of the same name in :mod:`ipvit.perturb.corruptions.blur`; here no chain is waited for.
    """
    height, width = size
    n = height * width
    pixel = torch.arange(n, device=move.device).view(size)
    visited = torch.zeros(size, dtype=torch.bool, device=move.device)
    moving = (slice(reach + 1, height - reach + 1), slice(reach + 1, width - reach + 1))
    visited[moving] = True
    link = (pixel + n).repeat(len(move), 1, 1)  # n and above: the end of a chain
    neighbour = pixel[moving] + move[..., 1].to(torch.int64).mul_(width) + move[..., 0]
    later = visited.flatten().index_select(0, neighbour.flatten()).view_as(neighbour) & (neighbour > pixel[moving])
    link[:, *moving] = torch.where(later, neighbour, neighbour + n)
    link = link.flatten(1)
    for _ in range(_HOPS):
        link = torch.where(link < n, link.gather(1, link.remainder(n)), link)
    return link.remainder_(n)


def _blurred(images: Tensor, sigma: float) -> Tensor:
    """Blur bytes with a Gaussian, edges repeated, in whole numbers; cut off."""
    taps = _whole(gaussian_kernel(sigma), _BLUR_BITS)
    radius = len(taps) // 2
    values = images.to(torch.int64)
    for dim in (-1, -2):
        side = images.shape[dim]
        places = torch.arange(-radius, side + radius, device=images.device).clamp_(0, side - 1)
        wide = values.index_select(dim, places)
        values = wide.narrow(dim, 0, side) * taps[0]
        for number, tap in enumerate(taps[1:], start=1):
            values.add_(wide.narrow(dim, number, side) * tap)
    return values.bitwise_right_shift_(2 * _BLUR_BITS).to(torch.uint8)


def elastic_transform(images: Tensor, severity: int, draws: Draws) -> Tensor:
    """Pull three points and displace every pixel, see :func:`ipvit.perturb.corruptions.elastic_transform`."""
    height, width = images.shape[-2:]
    strength, sigma, reach = elastic_lengths(severity, (height, width))
    pulled = reach * (2 * draws.few(6).reshape(-1, 3, 2) - 1)
    pull = from_numpy(_affine(elastic_points((height, width)), pulled)).to(images.device, non_blocking=True)
    rows = torch.arange(height, dtype=torch.float64, device=images.device)[:, None]
    columns = torch.arange(width, dtype=torch.float64, device=images.device)
    of_column, of_row, constant = pull[..., None, None].unbind(dim=2)  # (B, 2, 1, 1) each: x, then y
    places = (columns * of_column + rows * of_row).add_(constant)
    values = _interpolated(images.to(torch.int64), places[:, 1], places[:, 0], repeated=False)
    field = draws.sixteens(2, height, width).mul_(2).sub_(SIXTEENTHS - 1)
    moved = _smooth(field, sigma).mul_(strength)
    values = _interpolated(values, moved[:, 1].add_(rows), moved[:, 0].add_(columns), repeated=True)
    return values.bitwise_right_shift_(4 * _BETWEEN_BITS).to(torch.uint8)


def _affine(points: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """Return where each pixel of the image with moved points comes from, ``(B, 2, 3)``: x and y by x, y and 1.

    Args:
        points: three (x, y), of which the first two share x and the last two share y, see
            :func:`ipvit.perturb.corruptions.digital.elastic_points`.
        moves: ``(B, 3, 2)``.
    """
    moved = points + moves
    wide, tall = points[1, 0] - points[2, 0], points[0, 1] - points[1, 1]
    # the plane that takes the points to the moved ones, and what undoes it
    by_y, by_x = (moved[:, 0] - moved[:, 1]) / tall, (moved[:, 1] - moved[:, 2]) / wide
    base = moved[:, 1] - by_x * points[1, 0] - by_y * points[1, 1]
    a, c, b, d = by_x[:, 0], by_x[:, 1], by_y[:, 0], by_y[:, 1]
    area = a * d - b * c
    back = np.array([[d, -b], [-c, a]]) / area
    constant = -(back * base.T).sum(axis=1)
    return np.ascontiguousarray(np.concatenate([back, constant[:, None]], axis=1).transpose(2, 0, 1))


def _smooth(field: Tensor, sigma: float) -> Tensor:
    """Blur fields ``(B, n, H, W)``, mirrored at their edges; float64 in [-1, 1] of whole numbers up to 65,535.

    The weights are whole numbers too, so no sum is rounded, in whatever order it is taken.
    """
    rows = _blur_matrix(field.shape[-2], sigma, field.device)
    columns = _blur_matrix(field.shape[-1], sigma, field.device)
    return (rows @ field.to(torch.float64) @ columns.T).mul_(2.0 ** -(2 * _FIELD_BITS + 16))


@lru_cache(maxsize=16)
def _blur_matrix(side: int, sigma: float, device: torch.device) -> Tensor:
    return from_numpy(np.rint(mirrored_blur(side, sigma) * 2**_FIELD_BITS)).to(device, non_blocking=True)


def _interpolated(values: Tensor, rows: Tensor, columns: Tensor, *, repeated: bool) -> Tensor:
    """Return what lies at places between pixels, linearly: whole numbers, ``2 * _BETWEEN_BITS`` bits longer.

    Args:
        values: ``(B, C, H, W)`` int64, mirrored at the edges.
        rows: ``(B, H, W)`` float64.
        columns: ``(B, H, W)`` float64.
        repeated: whether the outermost pixel comes twice where the image is mirrored.
    """
    one = 1 << _BETWEEN_BITS
    (above, below, of_below), (before, after, of_after) = (
        _neighbours(places, side, repeated) for places, side in ((rows, values.shape[-2]), (columns, values.shape[-1]))
    )
    total: Tensor | None = None
    for row, of_row in ((above, one - of_below), (below, of_below)):
        for column, of_column in ((before, one - of_after), (after, of_after)):
            part = _taken(values, row * values.shape[-1] + column).mul_((of_row * of_column)[:, None])
            total = part if total is None else total.add_(part)
    assert total is not None
    return total


def _neighbours(places: Tensor, side: int, repeated: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return the pixels on both sides of places, and the second one's share in 2^-_BETWEEN_BITS."""
    fine = (places * (1 << _BETWEEN_BITS)).round_().to(torch.int64)
    first = fine >> _BETWEEN_BITS
    return _mirrored(first, side, repeated), _mirrored(first + 1, side, repeated), fine & ((1 << _BETWEEN_BITS) - 1)


def _mirrored(places: Tensor, side: int, repeated: bool) -> Tensor:
    """Return places outside an image mirrored into it."""
    period = 2 * side if repeated else max(1, 2 * side - 2)
    inside = places.remainder(period)
    return torch.minimum(inside, (period - 1 if repeated else period) - inside)
