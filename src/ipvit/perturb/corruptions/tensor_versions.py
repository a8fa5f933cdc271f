"""Corruptions without chance on whole batches, as tensors: a GPU makes them where the images are.

They are to give the bytes of :func:`ipvit.perturb.corruptions.corrupt`, so they compute what it computes in the same
order, rounding for rounding. How numpy, OpenCV, Pillow and a GPU round depends on what they were built for, so
:func:`equal` looks before anything is made here: what does not come out the same stays where it was.
No division is by a number of the processor's, which GPUs replace by a product.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ipvit.perturb.corruptions.arrays import gaussian_kernel, level, zoomed
from ipvit.perturb.corruptions.blur import DEFOCUS, GAUSSIAN, ZOOM_FACTORS, disk
from ipvit.perturb.corruptions.by_name import corrupt
from ipvit.perturb.corruptions.digital import CONTRAST, JPEG, PIXELATE, SATURATE, jpeg85
from ipvit.perturb.corruptions.jpeg_tensors import through_jpeg
from ipvit.perturb.corruptions.names import SEVERITIES
from ipvit.perturb.corruptions.weather import BRIGHTER, brighter
from ipvit.perturb.tensors import from_numpy, irfft2, rfft2

_TRIED = 32
"""Pixels a side of the images on which equality is tried, and the least that are corrupted here."""

_PILLOW_BITS = 22
"""Bits behind the point of the weights with which Pillow resizes."""


def corrupt_tensors(images: Tensor, name: str, severity: int, *, jpeg: bool = False) -> Tensor:
    """Corrupt a batch of images in the same way.

    Args:
        images: ``(B, 3, H, W)`` uint8, RGB, of 32 or more pixels a side, on any device with float64; not changed.
        name: one of :data:`TENSOR_VERSIONS`.
        severity: 1 to 5.
        jpeg: as they come out of a JPEG file of quality 85.

    Returns:
        ``(B, 3, H, W)`` uint8, on the same device.
    """
    made = TENSOR_VERSIONS[name](images, severity)
    return through_jpeg(made, 85) if jpeg else made


@lru_cache(maxsize=64)
def equal(name: str, device: torch.device, size: tuple[int, int], *, jpeg: bool) -> bool:
    """Tell whether a device makes the bytes of a corruption that this machine's processor makes, as far as is tried.

    Tried are every severity on noise, on one colour after the other, where a sum that is not whole by a last bit is
    another byte, and on edges. It waits for the device.

    Args:
        name: of the corruption, any.
        device: where images are to be corrupted.
        size: height and width of the images. How it ends decides: OpenCV rounds the last columns otherwise where
            they do not fill a register. So images of that remainder are tried, and none smaller than these are made.
        jpeg: store them as JPEG of quality 85.
    """
    if name not in TENSOR_VERSIONS or min(size) < _TRIED or device.type == "mps":  # which has no float64
        return False
    images = _samples(_TRIED + size[0] % _TRIED, _TRIED + size[1] % _TRIED)
    sent = from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).to(device)
    for severity in SEVERITIES:
        plain = [corrupt(image, name, severity, 0) for image in images]
        expected = np.stack([jpeg85(image) for image in plain] if jpeg else plain)
        found = corrupt_tensors(sent, name, severity, jpeg=jpeg).cpu().numpy()
        if not np.array_equal(found.transpose(0, 2, 3, 1), expected):
            return False
    return True


def _samples(height: int, width: int) -> np.ndarray:
    """Return noise, all greys and some colours without detail, and black and white halves, ``(n, H, W, 3)``."""
    random = np.random.default_rng(0)
    values = np.concatenate([np.arange(256), random.integers(0, 256, 8)]).reshape(-1, 3)
    plain = np.broadcast_to(values[:, None, None, :].astype(np.uint8), (len(values), height, width, 3))
    halves = np.zeros((2, height, width, 3), np.uint8)
    halves[0, :, width // 3 :], halves[1, height // 3 :] = 255, 255
    return np.concatenate([random.integers(0, 256, (8, height, width, 3), dtype=np.uint8), plain, halves])


def _number(value: float, like: Tensor) -> Tensor:
    """Return a number on a device, to divide by."""
    return torch.full((), value, dtype=like.dtype, device=like.device)


def as_units(images: Tensor) -> Tensor:
    """Return bytes as float64 in [0, 1]."""
    values = images.to(torch.float64)
    return values.div_(_number(255, values))


def unit_bytes(values: Tensor) -> Tensor:
    """Return numbers in [0, 1] as bytes: clipped, then cut off."""
    return values.clamp_(0, 1).mul_(255).to(torch.uint8)


def _brightness(images: Tensor, severity: int) -> Tensor:
    value = images.amax(dim=1, keepdim=True).to(torch.int32) << 8
    place = (value | images).flatten()
    return _table(level(BRIGHTER, severity), images.device).index_select(0, place).view_as(images)


@lru_cache(maxsize=8)
def _table(plus: float, device: torch.device) -> Tensor:
    return from_numpy(brighter(plus)).to(device, non_blocking=True)


def _contrast(images: Tensor, severity: int) -> Tensor:
    batch, _, height, width = images.shape
    values = as_units(images.permute(2, 3, 0, 1).reshape(height * width, batch * 3))
    # one after the other, as numpy adds: along the first dimension a cumulative sum is one loop for each column
    total = values.cumsum(dim=0)[-1]
    mean = total / _number(height * width, total)
    made = unit_bytes(values.sub_(mean).mul_(level(CONTRAST, severity)).add_(mean))
    return made.view(height, width, batch, 3).permute(2, 3, 0, 1).contiguous()


def _saturate(images: Tensor, severity: int) -> Tensor:
    times, plus = level(SATURATE, severity)
    largest, smallest = images.amax(dim=1, keepdim=True), images.amin(dim=1, keepdim=True)
    spread = largest - smallest
    lacking = (largest - images).to(torch.float64) / spread.clamp(min=1).to(torch.float64)
    lacking[:, 1:].masked_fill_(spread == 0, 1)
    high, low = as_units(largest), as_units(smallest)
    saturation = torch.where(largest > 0, (high - low) / high, 0).mul_(times).add_(plus).clamp_(0, 1)
    return unit_bytes((1 - lacking.mul_(saturation)).mul_(high))


def _pixelate(images: Tensor, severity: int) -> Tensor:
    share = level(PIXELATE, severity)
    height, width = images.shape[-2:]
    small = images
    for size in ((max(1, int(height * share)), max(1, int(width * share))), (height, width)):
        for dim in (-1, -2):  # as Pillow does it: whole bytes lie between the two
            small = _by_area(small, dim, size[dim])
    return small


def _by_area(images: Tensor, dim: int, size: int) -> Tensor:
    """Resize one side of uint8 images by area, in Pillow's integers."""
    if images.shape[dim] == size:
        return images
    places, weights = _area(images.shape[dim], size, images.device)
    total: Tensor | None = None
    for place, weight in zip(places, weights, strict=True):
        part = images.index_select(dim, place).to(torch.int32) * (weight if dim == -1 else weight[:, None])
        total = part if total is None else total.add_(part)
    assert total is not None
    return total.add_(1 << (_PILLOW_BITS - 1)).bitwise_right_shift_(_PILLOW_BITS).clamp_(0, 255).to(torch.uint8)


@lru_cache(maxsize=32)
def _area(side: int, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return which pixels come into each of the new ones, and their weights, ``(taps, size)`` int64 and int32.

    Pillow's ``Resample.c``: a pixel belongs to a box where its centre does.
    """
    scale = side / size
    stretched = max(scale, 1.0)
    taps: list[list[tuple[int, int]]] = []
    for number in range(size):
        centre = (number + 0.5) * scale
        first, last = max(0, int(centre - stretched / 2 + 0.5)), min(side, int(centre + stretched / 2 + 0.5))
        inside = [-0.5 < (place - centre + 0.5) * (1 / stretched) <= 0.5 for place in range(first, last)]
        weight = int(0.5 + (1.0 / sum(inside) if any(inside) else 0.0) * (1 << _PILLOW_BITS))
        taps.append([(place, weight * within) for place, within in zip(range(first, last), inside, strict=True)])
    most = max(map(len, taps))
    whole = np.array([row + [(0, 0)] * (most - len(row)) for row in taps])
    places, weights = np.ascontiguousarray(whole[..., 0].T), np.ascontiguousarray(whole[..., 1].T, np.int32)
    return from_numpy(places).to(device, non_blocking=True), from_numpy(weights).to(device, non_blocking=True)


def _jpeg_compression(images: Tensor, severity: int) -> Tensor:
    return through_jpeg(images, level(JPEG, severity))


def _gaussian_blur(images: Tensor, severity: int) -> Tensor:
    """As OpenCV: along rows tap by tap, one rounding each, then along columns, both sides of the middle at once."""
    taps = [float(tap) for tap in gaussian_kernel(level(GAUSSIAN, severity))]
    radius = len(taps) // 2
    height, width = images.shape[-2:]
    wide = F.pad(as_units(images), (radius, radius, 0, 0), mode="replicate")
    total = wide[..., :width] * taps[0]
    for number, tap in enumerate(taps[1:], start=1):
        total.add_(wide[..., number : number + width], alpha=tap)
    tall = F.pad(total, (0, 0, radius, radius), mode="replicate")
    total = tall[..., radius : radius + height, :] * taps[radius]
    for reach in range(1, radius + 1):
        below, above = radius + reach, radius - reach
        both = tall[..., below : below + height, :] + tall[..., above : above + height, :]
        total.add_(both.mul_(taps[below]))
    return unit_bytes(total)


def _defocus_blur(images: Tensor, severity: int) -> Tensor:
    """By Fourier transforms, as OpenCV does: the disk's weights are float32, so no sum is whole by a last bit."""
    radius, smooth = level(DEFOCUS, severity)
    reach = disk(radius, smooth).shape[0] // 2
    height, width = images.shape[-2:]
    large = F.pad(as_units(images), (reach, reach, reach, reach), mode="reflect")
    spectrum = rfft2(large).mul_(_disk_spectrum(radius, smooth, large.shape[-2:], images.device))
    blurred = irfft2(spectrum, s=large.shape[-2:])
    return unit_bytes(blurred[..., 2 * reach : 2 * reach + height, 2 * reach : 2 * reach + width].contiguous())


@lru_cache(maxsize=16)
def _disk_spectrum(radius: int, smooth: float, size: tuple[int, int], device: torch.device) -> Tensor:
    weights = from_numpy(disk(radius, smooth).astype(np.float64)).to(device, non_blocking=True)
    return rfft2(weights, s=size)


def _zoom_blur(images: Tensor, severity: int) -> Tensor:
    factors = [float(factor) for factor in level(ZOOM_FACTORS, severity)]
    planes = as_units(images).float()
    total = torch.zeros_like(planes)
    for factor in factors:
        total += _enlarged(planes, factor)
    made = planes.add_(total)
    return unit_bytes(made.div_(_number(len(factors) + 1, made)))


def _enlarged(planes: Tensor, factor: float) -> Tensor:
    """Return what :func:`ipvit.perturb.corruptions.arrays.zoom` does of float32 planes, with its roundings.

    The four products are added with one rounding each, in the order in which torch's loop is compiled for processors
    that multiply and add at once. float64 holds such a product without error.
    """
    above, below, of_above, of_below = _places(planes.shape[-2], factor, planes.device)
    before, after, of_before, of_after = _places(planes.shape[-1], factor, planes.device)
    first, second = planes.index_select(-2, above).double(), planes.index_select(-2, below).double()
    total: Tensor | None = None
    for rows, columns, down, across in (
        (first, after, of_above, of_after),
        (first, before, of_above, of_before),
        (second, before, of_below, of_before),
        (second, after, of_below, of_after),
    ):
        product = rows.index_select(-1, columns).mul_((down[:, None] * across).double())
        total = (product if total is None else product.add_(total)).float()
    assert total is not None
    return total


@lru_cache(maxsize=128)
def _places(side: int, factor: float, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return which two pixels each of the new ones lies between, and their weights, ``(side,)`` each."""
    top, inside, enlarged, above = zoomed(side, factor)
    step = np.float32(inside - 1) / np.float32(max(1, enlarged - 1))
    place = np.arange(above, above + side, dtype=np.float32) * step
    first = np.minimum(place.astype(np.int64), inside - 1)
    share = np.clip(place - first.astype(np.float32), np.float32(0), np.float32(1))
    numbers = [top + first, top + np.minimum(first + 1, inside - 1)]
    weights = [np.float32(1) - share, share]
    return tuple(from_numpy(np.ascontiguousarray(one)).to(device, non_blocking=True) for one in numbers + weights)  # pyright: ignore[reportReturnType]


TENSOR_VERSIONS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "defocus_blur": _defocus_blur,
    "zoom_blur": _zoom_blur,
    "brightness": _brightness,
    "contrast": _contrast,
    "pixelate": _pixelate,
    "jpeg_compression": _jpeg_compression,
    "gaussian_blur": _gaussian_blur,
    "saturate": _saturate,
}
"""The corruptions that there are as tensors."""
