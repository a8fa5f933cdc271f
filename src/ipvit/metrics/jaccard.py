"""The Jaccard index of a mask and a region (section 3.2, table 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipvit.metrics.exact import double

if TYPE_CHECKING:
    from torch import Tensor


def jaccard(mask: Tensor, region: Tensor, ignore: Tensor | None = None) -> Tensor:
    """Return intersection over union, pixel by pixel.

    Args:
        mask: bool ``(..., H, W)``, for example one mask per attention head.
        region: bool ``(..., H, W)`` that broadcasts against ``mask``: what the mask should be.
        ignore: bool, likewise: pixels that belong neither to the region nor to the background. They count nowhere.

    Returns:
        ``(...)`` float64 in [0, 1]; NaN where mask and region are both empty.

    Example:
        >>> import torch
        >>> mask = torch.tensor([[True, True], [False, False]])
        >>> region = torch.tensor([[True, False], [True, False]])
        >>> round(jaccard(mask, region).item(), 3)
        0.333
        >>> jaccard(mask, region, ignore=torch.tensor([[False, True], [True, False]])).item()
        1.0
    """
    import torch

    if any(pixels.dtype != torch.bool for pixels in (mask, region)) or mask.shape[-2:] != region.shape[-2:]:
        raise ValueError(f"two bool masks of the same height and width are needed, not {mask.shape} and {region.shape}")
    if ignore is not None:
        mask, region = mask & ~ignore, region & ~ignore
    both = double((mask & region).sum(dim=(-2, -1)))
    either = double((mask | region).sum(dim=(-2, -1)))
    return torch.where(either > 0, both / either, torch.nan)
