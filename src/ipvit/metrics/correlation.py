"""Correlation and cosine of representations (section 3.1, table 1; section 3.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ipvit.metrics.exact import double

if TYPE_CHECKING:
    from torch import Tensor


def correlation(u: Tensor, v: Tensor) -> Tensor:
    """Return Pearson's correlation over the feature dimension, one value per image.

    ``corr(u, v) = sum_i a_i b_i / n`` with ``a = (u - mean u) / sigma(u)`` and the population ``sigma`` (the paper's
    formula).

    Args:
        u: ``(B, D)``.
        v: ``(B, D)``.

    Returns:
        ``(B,)`` in [-1, 1]; NaN where a vector is constant.

    >>> import torch
    >>> correlation(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[2.0, 4.0, 6.0]])).item()
    1.0
    """
    import torch

    a, b = (x - x.mean(dim=1, keepdim=True) for x in (double(u), double(v)))
    product = (a * b).sum(dim=1)
    scale = (a.square().sum(dim=1) * b.square().sum(dim=1)).sqrt()
    return torch.where(scale > 0, product / scale, torch.nan).clamp(-1, 1).to(u)


def cosine(u: Tensor, v: Tensor) -> Tensor:
    """Return the cosine of the angle between ``u`` and ``v``, both ``(B, D)``: ``(B,)``; NaN for a zero vector."""
    import torch

    a: Any = double(u)  # a tensor's norm() has no type
    b: Any = double(v)
    scale = a.norm(dim=1) * b.norm(dim=1)
    return torch.where(scale > 0, (a * b).sum(dim=1) / scale, torch.nan).clamp(-1, 1).to(u)
