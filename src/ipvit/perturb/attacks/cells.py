"""Attacks on whole cells of a grid, such as the patches of a transformer: the few most harmful ones are replaced."""

from __future__ import annotations

from collections.abc import Callable
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
from ipvit.perturb.cells import cell_sums, check_cells, pixel_mask
from ipvit.perturb.seeding import random_order
from ipvit.perturb.tensors import from_numpy

Choice = Literal["random", "gradient", "greedy"]
"""How cells are chosen: at random as a control, those of the largest gradient, or one after the other by trying."""

Received = Callable[[Tensor], Tensor]
"""Images ``(B, 3, H, W)`` to the share of all attention that each cell receives, ``(B, cells)``, with a gradient."""

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
    received: Received | None = None,
    clean: Clean | None = None,
) -> Attacked:
    """Replace some cells of every image by what misleads a network most; all other pixels stay.

    The cells are chosen first, on the unchanged image, and then painted by gradient ascent, each value anywhere in
    [0, 1]; random ones too, so that what differs is the choice alone. Only images that are still right go on.

    Args:
        network: images to logits; refused in training mode.
        images: ``(B, 3, H, W)`` in [0, 1].
        labels: ``(B,)``, -1 for an image without label, which is not attacked; or ``(B, C)`` booleans.
        key: ``(B,)`` keys, from which random cells follow.
        grid: rows and columns of cells, at most one a pixel.
        count: how many cells are replaced.
        choice: how they are chosen; with one key fewer random cells are some of more.
        steps: gradient steps after the choice.
        step_size: length of a step, in pixels from 0 to 1.
        received: paint also so that the cells draw the network's attention: the logarithm of the share that they
            receive is added to the loss (attention as a target: Fu et al. 2022, Lovisotto et al. 2022).
        clean: from :func:`clean_pass`.

    Raises:
        ValueError: the network is in training mode or has no gradient; the attention has none; the grid has more cells
            than pixels, or fewer than are to be replaced.
    """
    check_cells((images.shape[2], images.shape[3]), grid)
    if not 1 <= count <= grid[0] * grid[1] or steps < 1:
        raise ValueError(f"{count} of {grid[0] * grid[1]} cells cannot be replaced in {steps} steps")
    refuse_training(network)
    clean = clean or clean_pass(network, images, labels, gradient=False)
    worst = Worst(images, labels, clean)
    rows = worst.still_right()
    if not len(rows):
        return worst.found()
    x = images[rows]
    _, gradient = logits_and_gradient(network, x, labels[rows])
    worst.note_zero_gradient(rows, gradient)
    chosen = _chosen(network, x, labels[rows], gradient, key[rows.cpu().numpy()], grid, count, choice)
    for step in range(steps):
        if step:
            logits, gradient = logits_and_gradient(network, x, labels[rows])
            right = worst.take(rows, x, logits, always=step == 1)
            rows, x, chosen, gradient = (values[right] for values in (rows, x, chosen, gradient))
            if not len(rows):
                return worst.found()
        if received is not None:
            gradient = gradient + _drawing(received, x, chosen)
        inside = pixel_mask(chosen.view(-1, *grid), (x.shape[2], x.shape[3]))
        x = torch.where(inside, (x + step_size * gradient.sign()).clamp(0, 1), x)
    worst.take(rows, x, logits_of(network, x), always=steps == 1)
    return worst.found()


def _drawing(received: Received, x: Tensor, chosen: Tensor) -> Tensor:
    """Return the gradient of the logarithm of the share of attention that the chosen cells receive."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        share = (received(x) * chosen).sum(dim=1)
        if not share.requires_grad:
            raise ValueError("the network's attention has no gradient with respect to its images")
        (gradient,) = torch.autograd.grad(share.clamp(min=torch.finfo(share.dtype).tiny).log().sum(), x)
    return gradient.nan_to_num(0.0)


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
    harm = cell_sums(gradient.abs().sum(dim=1), grid).flatten(1)
    if choice == "gradient":
        return _marked(harm.topk(count, dim=1).indices, cells)
    chosen = torch.zeros(len(x), cells, dtype=torch.bool, device=x.device)
    painted = torch.where(gradient > 0, torch.ones_like(x), torch.zeros_like(x))  # as far uphill as pixels go
    for _ in range(count):
        candidates = harm.masked_fill(chosen, -1).topk(min(_CANDIDATES, cells), dim=1).indices
        losses: list[Tensor] = []
        for place in range(candidates.shape[1]):
            tried = chosen | _marked(candidates[:, place : place + 1], cells)
            inside = pixel_mask(tried.view(-1, *grid), (x.shape[2], x.shape[3]))
            loss = margin_loss(logits_of(network, torch.where(inside, painted, x)), labels)
            taken = chosen.gather(1, candidates[:, place : place + 1]).squeeze(1)
            losses.append(loss.masked_fill(taken, float("-inf")))
        best = candidates.gather(1, torch.stack(losses, dim=1).argmax(dim=1, keepdim=True))
        chosen = chosen | _marked(best, cells)
    return chosen


def _marked(numbers: Tensor, cells: int) -> Tensor:
    found = torch.zeros(len(numbers), cells, dtype=torch.bool, device=numbers.device)
    return found.scatter(1, numbers, True)
