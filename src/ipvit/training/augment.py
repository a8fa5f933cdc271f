"""Changes to one training image, all of which follow from its key."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from ipvit.core.preprocessing import Preprocessing
from ipvit.data.decode import apply_view
from ipvit.perturb import seeding
from ipvit.training import policies
from ipvit.training.config import AugmentConfig

_MODES = {name: F.InterpolationMode(name) for name in ("bicubic", "bilinear", "nearest")}


class Augmentation:
    """One view of an image, as supervised training shows it.

    Args:
        part: which changes.
        preprocessing: size of the view, and the colour that policies fill with.
    """

    def __init__(self, part: AugmentConfig, preprocessing: Preprocessing) -> None:
        self._part, self._preprocessing = part, preprocessing
        self._recoloured = part.auto is not None or part.color_jitter is not None
        if self._recoloured:
            policies.policy(part.auto, part.color_jitter, preprocessing)  # an unknown one is named at once

    def prepare(self, picture: Tensor) -> Tensor:
        """Return what the views of one picture, ``(3, H, W)`` uint8, are cut from: worth keeping in memory."""
        view = self._preprocessing.view
        if self._part.simple_crop:
            return F.resize(picture, [min(view.size)], interpolation=_MODES[view.interpolation], antialias=True)
        return picture if self._part.crop_scale else apply_view(picture, view)

    def __call__(self, picture: Tensor, styled: Tensor | None, key: np.uint64) -> tuple[Tensor, ...]:
        """Return the view of a prepared picture, or of its styled copy: ``(3, *size)`` uint8."""
        part, view = self._part, self._preprocessing.view
        picture = picture if styled is None else styled
        uniform = (seeding.random_words(np.array([key]), 4)[0] / np.float64(2**64)).tolist()
        if part.crop_scale:
            rng = seeding.generator(key)
            picture = random_resized_crop(picture, rng, part.crop_scale, part.crop_ratio, view.size, view.interpolation)
        if part.simple_crop:
            picture = _simple_crop(picture, view.size, uniform[0], uniform[1])
        if part.pad:
            picture = _window(picture, part.pad, uniform[0], uniform[1])
        if uniform[2] < part.hflip:
            picture = picture.flip(2)
        if uniform[3] < part.vflip:
            picture = picture.flip(1)
        if self._recoloured:
            picture = policies.change(picture, part.auto, part.color_jitter, self._preprocessing, key)
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


def _simple_crop(picture: Tensor, size: tuple[int, int], down: float, right: float) -> Tensor:
    """Mirror 4 pixels at each border and cut a window, as DeiT III's simple random crop (Touvron et al. 2022)."""
    padded = torch.nn.functional.pad(picture[None].float(), [4] * 4, mode="reflect")[0].to(picture.dtype)
    spare = [have - want + 1 for have, want in zip(padded.shape[-2:], size, strict=True)]
    top, left = (min(int(place * room), room - 1) for place, room in zip((down, right), spare, strict=True))
    return padded[:, top : top + size[0], left : left + size[1]]
