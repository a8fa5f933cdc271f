"""Changes to one training image, all of which follow from its key."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data.auto_augment import auto_augment_transform, rand_augment_transform
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from ipvit.core.preprocessing import Preprocessing
from ipvit.data.decode import apply_view
from ipvit.errors import InputError
from ipvit.perturb import seeding
from ipvit.training.config import AugmentConfig

_MODES = {name: F.InterpolationMode(name) for name in ("bicubic", "bilinear", "nearest")}


class Augmentation:
    """One view of an image, as supervised training shows it.

    Args:
        part: which changes.
        preprocessing: size of the view, and the mean and spread of the noise that erases.
    """

    def __init__(self, part: AugmentConfig, preprocessing: Preprocessing) -> None:
        self._part, self._preprocessing = part, preprocessing
        if part.auto is not None:
            _policy(part.auto, preprocessing.mean)  # an unknown one is named before anything is read

    def prepare(self, picture: Tensor) -> Tensor:
        """Return what the views of one picture, ``(3, H, W)`` uint8, are cut from: worth keeping in memory."""
        return picture if self._part.crop_scale else apply_view(picture, self._preprocessing.view)

    def __call__(self, picture: Tensor, styled: Tensor | None, key: np.uint64) -> tuple[Tensor, ...]:
        """Return the view of a prepared picture, or of its styled copy: ``(3, *size)`` uint8."""
        part, view = self._part, self._preprocessing.view
        picture = picture if styled is None else styled
        uniform = (seeding.random_words(np.array([key]), 4)[0] / np.float64(2**64)).tolist()
        if part.crop_scale:
            rng = seeding.generator(key)
            picture = random_resized_crop(picture, rng, part.crop_scale, part.crop_ratio, view.size, view.interpolation)
        if part.pad:
            picture = _window(picture, part.pad, uniform[0], uniform[1])
        if uniform[2] < part.hflip:
            picture = picture.flip(2)
        if uniform[3] < part.vflip:
            picture = picture.flip(1)
        if part.auto is not None:
            picture = _apply_policy(picture, part.auto, self._preprocessing.mean, key)
        if part.erase:
            picture = _erase(picture, part.erase, self._preprocessing, key)
        return (picture,)


def random_resized_crop(
    picture: Tensor,
    rng: np.random.Generator,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    size: tuple[int, int],
    interpolation: str = "bicubic",
) -> Tensor:
    """Cut a random part and resize it (Szegedy et al. 2015), as torchvision's ``RandomResizedCrop``.

    Args:
        picture: ``(3, H, W)`` uint8.
        rng: where the part is.
        scale: range of its share of the area.
        ratio: range of its width over height, drawn evenly on a logarithmic scale.
        size: height and width of the result in pixels.
        interpolation: ``bicubic``, ``bilinear`` or ``nearest``.
    """
    height, width = picture.shape[-2:]
    for _ in range(10):
        area = height * width * rng.uniform(*scale)
        aspect = float(np.exp(rng.uniform(*np.log(ratio))))
        wide, tall = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
        if 0 < wide <= width and 0 < tall <= height:
            top, left = int(rng.integers(height - tall + 1)), int(rng.integers(width - wide + 1))
            break
    else:  # a long, thin picture: its middle
        wide, tall = min(width, round(height * ratio[1])), min(height, round(width / ratio[0]))
        top, left = (height - tall) // 2, (width - wide) // 2
    return F.resized_crop(
        picture, top, left, tall, wide, list(size), interpolation=_MODES[interpolation], antialias=True
    )


def _window(picture: Tensor, pad: int, down: float, right: float) -> Tensor:
    height, width = picture.shape[-2:]
    top, left = (min(int(place * (2 * pad + 1)), 2 * pad) for place in (down, right))
    return torch.nn.functional.pad(picture, [pad] * 4)[:, top : top + height, left : left + width]


def _erase(picture: Tensor, probability: float, preprocessing: Preprocessing, key: np.uint64) -> Tensor:
    """Replace a rectangle by noise, as ``timm.data.random_erasing`` with ``pixel``: 2 to 33 % of the area."""
    rng = seeding.generator(int(key) ^ 0xE5A5E)
    if rng.random() >= probability:
        return picture
    height, width = picture.shape[-2:]
    for _ in range(10):
        area, aspect = height * width * rng.uniform(0.02, 1 / 3), np.exp(rng.uniform(np.log(0.3), np.log(1 / 0.3)))
        tall, wide = round(float((area * aspect) ** 0.5)), round(float((area / aspect) ** 0.5))
        if 0 < tall < height and 0 < wide < width:
            top, left = int(rng.integers(height - tall + 1)), int(rng.integers(width - wide + 1))
            noise = rng.normal(size=(tall, wide, 3)) * preprocessing.std + np.array(preprocessing.mean)
            pixels = torch.from_numpy((noise.clip(0, 1) * 255).round().astype(np.uint8)).permute(2, 0, 1)
            picture = picture.clone()
            picture[:, top : top + tall, left : left + wide] = pixels
            break
    return picture


@cache
def _policy(name: str, mean: tuple[float, ...]) -> Callable[[Any], Any]:
    settings = {"translate_const": 100, "img_mean": tuple(round(255 * value) for value in mean)}
    make = rand_augment_transform if name.startswith("rand") else auto_augment_transform
    try:
        return make(name, settings)
    except (AssertionError, KeyError, ValueError, AttributeError) as error:
        raise InputError(
            f"augment.auto: timm knows no policy {name!r}; rand-m9-mstd0.5-inc1 is an example ({error})"
        ) from error


def _apply_policy(picture: Tensor, name: str, mean: tuple[float, ...], key: np.uint64) -> Tensor:
    image = Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy())
    with global_seeds(int(key)):
        changed = _policy(name, mean)(image)
    return torch.from_numpy(np.array(changed)).permute(2, 0, 1)


@contextmanager
def global_seeds(key: int) -> Iterator[None]:
    """Seed Python's and numpy's global generators, which timm's transforms draw from, and put them back afterwards."""
    before = random.getstate(), np.random.get_state()
    random.seed(key)
    np.random.seed(key % 2**32)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
