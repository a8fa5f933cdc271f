"""The views of self-supervised training: two global ones and several local ones (Caron et al. 2020, 2021)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from ipvit.core.preprocessing import View
from ipvit.perturb import seeding
from ipvit.training.augment import random_resized_crop
from ipvit.training.config import DinoConfig

_RATIO = (3 / 4, 4 / 3)
_BLUR = (1.0, 0.1, 0.5)
"""Probability of blur: first global view, second global view, local views."""


class MultiCrop:
    """Views with DINO's changes: flip, colour jitter (0.8), grey, blur (1, 0.1, 0.5), solarise (0, 0.2, 0).

    Args:
        part: number, size and range of the views, which copy of the image each is cut from, and how colours change.
        view: size and interpolation of the global views.
    """

    def __init__(self, part: DinoConfig, view: View) -> None:
        self._part, self._view = part, view

    def prepare(self, picture: Tensor) -> Tensor:
        """Return the picture itself: views are cut at its full resolution."""
        return picture

    def __call__(self, picture: Tensor, styled: Tensor | None, key: np.uint64) -> tuple[Tensor, ...]:
        """Return two global views ``(3, *view.size)`` and the local ones ``(3, local_size, local_size)``, uint8."""
        part = self._part
        # One stream a view: the same crops and colours come from the image and from its styled copy.
        words = seeding.random_words(np.array([key]), 2 + part.local_views)[0]
        views = []
        for number, word in enumerate(words):
            local = number >= 2
            wanted = part.local_views_of if local else part.global_views_of
            source = styled if wanted == "stylized" and styled is not None else picture
            size = (part.local_size, part.local_size) if local else self._view.size
            scale = part.local_scale if local else part.global_scale
            rng = seeding.generator(word)
            crop = random_resized_crop(source, rng, scale, _RATIO, size, self._view.interpolation)
            blur, solarize = _BLUR[min(number, 2)], 0.2 if number == 1 else 0.0
            scale = max(size) / 224 if part.scale_blur else 1.0
            changed = change_colours(crop, rng, part.color_jitter, part.grayscale, blur, solarize, scale)
            views.append(changed)
        return tuple(views)


def change_colours(
    image: Tensor,
    rng: np.random.Generator,
    jitter: tuple[float, float, float, float],
    grayscale: float,
    blur: float,
    solarize: float,
    blur_scale: float = 1.0,
) -> Tensor:
    """Flip, jitter, grey, blur and solarise, each with its probability.

    Args:
        image: ``(3, H, W)`` uint8.
        rng: what happens.
        jitter: most that brightness, contrast, saturation and hue change.
        grayscale: probability that the colour goes.
        blur: probability of a Gaussian blur with a standard deviation of 0.1 to 2 pixels.
        solarize: probability that values from 128 up are inverted.
        blur_scale: what those pixels are multiplied by.
    """
    if rng.random() < 0.5:
        image = image.flip(2)
    if rng.random() < 0.8:
        image = _jitter(image, rng, *jitter)
    if rng.random() < grayscale:
        image = F.rgb_to_grayscale(image, num_output_channels=3)
    if rng.random() < blur:
        sigma = float(rng.uniform(0.1, 2.0)) * blur_scale
        width = 2 * max(1, round(3 * sigma)) + 1
        image = F.gaussian_blur(image, [width, width], [sigma, sigma])
    if rng.random() < solarize:
        image = F.solarize(image, 128)
    return image


def _jitter(
    image: Tensor, rng: np.random.Generator, brightness: float, contrast: float, saturation: float, hue: float
) -> Tensor:
    """Change brightness, contrast, saturation and hue by at most these amounts, in a random order."""
    changes = (
        (F.adjust_brightness, rng.uniform(1 - brightness, 1 + brightness)),
        (F.adjust_contrast, rng.uniform(1 - contrast, 1 + contrast)),
        (F.adjust_saturation, rng.uniform(1 - saturation, 1 + saturation)),
        (F.adjust_hue, rng.uniform(-hue, hue)),
    )
    for place in rng.permutation(len(changes)):
        change, amount = changes[place]
        image = change(image, float(amount))
    return image if image.dtype == torch.uint8 else image.round().to(torch.uint8)
