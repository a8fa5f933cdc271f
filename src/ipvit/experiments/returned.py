"""What a function of the user's own returns in place of images, looked at before it is shown to a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ipvit.core.plugins import OwnCodeError, OwnFunction
from ipvit.perturb.budget import Budget
from ipvit.perturb.distance import ROUNDING, distances, within


def returned_images(function: OwnFunction, made: Any, images: Tensor) -> Tensor:
    """Return what a function made of images, of their type and on their device.

    Raises:
        OwnCodeError: it is no tensor of floating-point numbers of their shape.
    """
    if not isinstance(made, Tensor) or made.shape != images.shape or not made.is_floating_point():
        given = f"{_kind(made)} {tuple(made.shape)}" if isinstance(made, Tensor) else type(made).__name__
        raise OwnCodeError(
            f"{function.location} must return a tensor of floating-point numbers {tuple(images.shape)}, not {given}"
        )
    return made.detach().to(images)


def check_pixels(function: OwnFunction, made: Tensor, ids: Sequence[str]) -> None:
    """Check that images are finite and in [0, 1].

    Raises:
        OwnCodeError: they are not; it names the first such image, of these ids.
    """
    flat = made.flatten(1)
    if (row := _first(~torch.isfinite(flat).all(dim=1))) is not None:
        raise OwnCodeError(f"{function.location} returned pixels that are not finite, for {ids[row]!r}")
    low, high = flat.amin(dim=1), flat.amax(dim=1)
    if (row := _first((low < 0) | (high > 1))) is not None:
        value = float(low[row] if low[row] < 0 else high[row])
        raise OwnCodeError(f"{function.location} must return pixels from 0 to 1, not {value:.6g} as for {ids[row]!r}")


def into_budget(function: OwnFunction, images: Tensor, made: Tensor, budget: Budget, ids: Sequence[str]) -> Tensor:
    """Return images within a budget, to the last digit.

    A pixel may be off by what rounding to float32 makes of it; it is then moved back.

    Raises:
        OwnCodeError: one is further away than that; it names the first such image, of these ids.
    """
    far = distances(images, made, budget.norm, rounding=ROUNDING) > budget.size
    if (row := _first(far)) is not None:
        distance = float(distances(images, made, budget.norm)[row])
        raise OwnCodeError(
            f"{function.location} moved {ids[row]!r} by {distance:.6g} in {budget.norm}, {distance - budget.size:.2g} "
            f"more than the budget of {budget.size:.6g} (pixels from 0 to 1)"
        )
    return within(images, made, budget)


def _first(wrong: Tensor) -> int | None:
    """Return the first row that something is wrong with, None where there is none."""
    return int(wrong.int().argmax()) if bool(wrong.any()) else None


def _kind(made: Tensor) -> str:
    return str(made.dtype).removeprefix("torch.")
