"""Adaptive instance normalisation (Huang & Belongie 2017), the mathematics of Stylized-ImageNet's style transfer."""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-5
"""Added to a variance before the root, as the networks' decoder was trained with."""


def channel_statistics(features: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each channel over the positions, ``(B, C, 1, 1)`` each.

    The variance is the unbiased one, plus :data:`EPSILON`.
    """
    variance, mean = torch.var_mean(features, dim=(-2, -1), keepdim=True)
    return mean, (variance + EPSILON).sqrt()


def adain(content: Tensor, style: Tensor, alpha: float = 1.0) -> Tensor:
    """Give each channel of the content's features the mean and standard deviation of the style's.

    Args:
        content: ``(B, C, H, W)``.
        style: ``(B, C, h, w)``, any height and width.
        alpha: 1 is the style's statistics, 0 the content's features unchanged, between them a blend.

    Returns:
        ``(B, C, H, W)``.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha lies in [0, 1], not {alpha}")
    if content.shape[:2] != style.shape[:2]:
        raise ValueError(f"features of {tuple(content.shape)} and {tuple(style.shape)} differ in batch or channels")
    own_mean, own_std = channel_statistics(content)
    mean, std = channel_statistics(style)
    return (1 - alpha) * content + alpha * ((content - own_mean) / own_std * std + mean)
