"""How far attention reaches (Dosovitskiy et al. 2021, appendix D.7), and which patches have outlying norms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipvit.metrics.exact import double

if TYPE_CHECKING:
    from torch import Tensor


def attention_distance(attention: Tensor, grid: tuple[int, int], patch_size: tuple[float, float]) -> Tensor:
    """Return the mean distance in pixels between a query patch and the patches it attends to.

    Args:
        attention: ``(B, N, N)`` from patch to patch; rows need not sum to one (prefix tokens are left out).
        grid: rows and columns of the patches, ``N`` in all.
        patch_size: height and width of a patch in pixels.

    Returns:
        ``(B,)``: distances averaged with the attention as weights, then over the queries.
    """
    import torch

    rows, columns = grid
    y, x = torch.meshgrid(
        torch.arange(rows, device=attention.device) * patch_size[0],
        torch.arange(columns, device=attention.device) * patch_size[1],
        indexing="ij",
    )
    places = double(torch.stack([y.flatten(), x.flatten()], dim=1))
    distance = torch.cdist(places, places)
    weights = double(attention)
    reached = (weights * distance).sum(dim=-1) / weights.sum(dim=-1).clamp(min=torch.finfo(torch.float64).tiny)
    return reached.mean(dim=-1).float().to(attention.device)


def norm_ratios(patches: Tensor) -> Tensor:
    """Return the norm of each patch token over the median norm of its image.

    Outliers of vision transformers have several times the median (Darcet et al. 2024, *Vision Transformers Need
    Registers*).

    Args:
        patches: ``(B, N, D)``, as they leave a block, not normalised.

    Returns:
        ``(B, N)``; the median of an even number of patches is the mean of the two in the middle.
    """
    norms = double(patches).square().sum(dim=-1).sqrt()
    return norms / norms.quantile(0.5, dim=-1, keepdim=True)
