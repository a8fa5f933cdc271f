"""Attacks on whole cells of a grid, such as the patches of a transformer: the few most harmful ones are replaced."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ipvit.perturb.attacks.common import (
    Attacked,
    Clean,
    Network,
    Worst,
    clean_pass,
    logits_and_gradient,
    logits_of,
    margin_loss,
    refuse_training,
)
from ipvit.perturb.seeding import random_order
from ipvit.perturb.tensors import from_numpy

Choice = Literal["gradient", "greedy", "random"]
"""How cells are chosen: those of the largest gradient, one after the other by trying, or at random as a control."""

_CANDIDATES = 16
"""Cells of the largest gradient that the greedy search tries for each place."""


def attack_cells(
    network: Network,
    images: Tensor,
    labels: Tensor,
    key: np.ndarray,
    *,
    grid: tuple[int, int],
    count: int,
    choice: Choice = "gradient",
    steps: int = 20,
    step_size: float = 0.1,
    clean: Clean | None = None,
) -> Attacked:
    """Replace some cells of every image by what misleads a network most; all other pixels stay.

    The cells are chosen first, on the unchanged image, and then painted by gradient ascent, each value anywhere in
    [0, 1]. Only images that are still right go on.

    Args:
        network: images to logits; refused in training mode.
        images: ``(B, 3, H, W)`` in [0, 1]; the grid divides them.
        labels: ``(B,)``, -1 for an image without label, which is not attacked; or ``(B, C)`` booleans.
        key: ``(B,)`` keys, from which random cells follow.
        grid: rows and columns of cells.
        count: how many cells are replaced.
        choice: how they are chosen.
        steps: gradient steps after the choice.
        step_size: length of a step, in pixels from 0 to 1.
        clean: from :func:`clean_pass`.

    Raises:
        ValueError: the network is in training mode or has no gradient; the grid does not divide the images, or has
            fewer cells.
    """
    cells = grid[0] * grid[1]
    if images.shape[2] % grid[0] or images.shape[3] % grid[1] or not 1 <= count <= cells or steps < 1:
        raise ValueError(f"a grid of {grid} and {count} cells do not fit images of {tuple(images.shape[2:])} pixels")
    refuse_training(network)
    clean = clean or clean_pass(network, images, labels, gradient=False)
    worst = Worst(images, labels, clean)
    rows = worst.still_right()
    if not len(rows):
        return worst.found()
    x, answers = images[rows], labels[rows]
    _, gradient = logits_and_gradient(network, x, answers)
    worst.note_zero_gradient(rows, gradient)
    chosen = _chosen(network, x, answers, gradient, key[rows.cpu().numpy()], grid, count, choice)
    for step in range(steps):
        if step:
            _, gradient = logits_and_gradient(network, x, labels[rows])
        x = torch.where(_pixels(chosen, grid, x), (x + step_size * gradient.sign()).clamp(0, 1), x)
        still = worst.take(rows, x, logits_of(network, x), always=step == 0)
        if not bool(still.all()):
            kept = torch.where(still)[0]
            if not len(kept):
                break
            rows, x, chosen = rows[kept], x[kept], chosen[kept]
    return worst.found()


def _chosen(
    network: Network,
    x: Tensor,
    labels: Tensor,
    gradient: Tensor,
    key: np.ndarray,
    grid: tuple[int, int],
    count: int,
    choice: Choice,
) -> Tensor:
    """Return which cells are replaced, ``(B, cells)`` bool."""
    cells = grid[0] * grid[1]
    if choice == "random":
        order = from_numpy(random_order(key, cells).astype(np.int64)).to(x.device)
        return _marked(order[:, :count], cells)
    harm = _by_cell(gradient.abs(), grid)
    if choice == "gradient":
        return _marked(harm.topk(count, dim=1).indices, cells)
    chosen = torch.zeros(len(x), cells, dtype=torch.bool, device=x.device)
    painted = torch.where(gradient > 0, torch.ones_like(x), torch.zeros_like(x))  # as far uphill as pixels go
    for _ in range(count):
        candidates = harm.masked_fill(chosen, -1).topk(min(_CANDIDATES, cells), dim=1).indices
        losses: list[Tensor] = []
        for place in range(candidates.shape[1]):
            tried = chosen | _marked(candidates[:, place : place + 1], cells)
            shown = torch.where(_pixels(tried, grid, x), painted, x)
            loss = margin_loss(logits_of(network, shown), labels)
            taken = chosen.gather(1, candidates[:, place : place + 1]).squeeze(1)
            losses.append(loss.masked_fill(taken, float("-inf")))
        best = candidates.gather(1, torch.stack(losses, dim=1).argmax(dim=1, keepdim=True))
        chosen = chosen | _marked(best, cells)
    return chosen


def _by_cell(values: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return the sum over every cell, ``(B, cells)``."""
    images, channels, height, width = values.shape
    parts = values.view(images, channels, grid[0], height // grid[0], grid[1], width // grid[1])
    return parts.sum(dim=(1, 3, 5)).flatten(1)


def _pixels(chosen: Tensor, grid: tuple[int, int], like: Tensor) -> Tensor:
    """Return the pixels of chosen cells, ``(B, 1, H, W)`` bool."""
    height, width = like.shape[2] // grid[0], like.shape[3] // grid[1]
    whole = chosen.view(-1, 1, *grid)
    return whole.repeat_interleave(height, dim=2).repeat_interleave(width, dim=3)


def _marked(numbers: Tensor, cells: int) -> Tensor:
    found = torch.zeros(len(numbers), cells, dtype=torch.bool, device=numbers.device)
    return found.scatter(1, numbers, True)
