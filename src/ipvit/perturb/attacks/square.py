"""Square: random search by squares, which asks a network for its answers alone (Andriushchenko et al. 2020)."""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np
import torch
from torch import Tensor

from ipvit.perturb.attacks.balls import Ball, ball_around
from ipvit.perturb.attacks.common import (
    Attacked,
    Clean,
    Network,
    Worst,
    clean_pass,
    logits_of,
    refuse_training,
    right_and_others,
)
from ipvit.perturb.budget import Budget
from ipvit.perturb.seeding import random_words
from ipvit.perturb.tensors import from_numpy

_FIRST_SHARE = 0.8
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""After so many queries the share of the image that a square covers is halved."""
_WORDS = 12
"""Random words that an image uses up in a query: two places, one turn, and signs of up to seven channels."""
_TINY = 1e-12
_FILLINGS = 6
"""How often what the pixel range cuts off is given to the other values; all but a millionth is then used."""
_USED = 1 - 2.0**-20
"""Share of the budget that is aimed at, so that rounding does not leave it."""


def square(
    network: Network,
    images: Tensor,
    labels: Tensor,
    budget: Budget,
    key: np.ndarray,
    *,
    queries: int = 5000,
    clean: Clean | None = None,
) -> Attacked:
    """Attack by random search, without gradients; only images that are still right are asked about.

    A change is kept where it lowers the label's logit minus the largest other one. In l2 and l1 every query uses the
    whole budget: what [0, 1] cuts off, which the authors leave unused, the other values make up for. More queries try
    all that fewer would have tried, so they never leave more images right.

    Args:
        network: images to logits; refused in training mode.
        images: ``(B, 3, H, W)`` in [0, 1].
        labels: ``(B,)``, -1 for an image without label, which is not attacked; or ``(B, C)`` booleans.
        budget: how far images may be moved, in linf, l2 or l1.
        key: ``(B,)`` keys, one for each image, from which its squares follow.
        queries: how often the network is asked about an image.
        clean: from :func:`clean_pass`; one pass serves every budget and attack.

    Raises:
        ValueError: the network is in training mode.
    """
    if queries < 1:
        raise ValueError(f"Square needs at least one query, not {queries}")
    refuse_training(network)
    clean = clean or clean_pass(network, images, labels, gradient=False)
    worst = Worst(images, labels, clean)
    rows = worst.still_right()
    if not len(rows) or budget.size == 0:
        return worst.found()
    key = key[rows.cpu().numpy()]
    ball = ball_around(images[rows], budget)
    draw = _Draws(random_words(key, _WORDS), images.device)
    best = _stripes(ball, key) if budget.norm == "linf" else _tiles(ball, key)
    lowest = torch.full((len(rows),), float("inf"), device=images.device)
    candidate = best
    for query in range(queries):
        if query:
            draw = _Draws(random_words(key, _WORDS, skip=_WORDS * query), images.device)
            side = _side(query, images)
            candidate = _new_square(ball, best, draw, side) if budget.norm == "linf" else _moved(ball, best, draw, side)
        logits = logits_of(network, candidate)
        right, others = right_and_others(logits, labels[rows])
        margin = right - others.amax(dim=1)
        better = margin < lowest
        best = torch.where(better.view(-1, 1, 1, 1), candidate, best)
        lowest = torch.where(better, margin, lowest)
        still = worst.take(rows, candidate, logits)
        if not bool(still.all()):
            kept = torch.where(still)[0]
            if not len(kept):
                break
            rows, best, lowest, ball = rows[kept], best[kept], lowest[kept], ball.part(kept)
            key = key[kept.cpu().numpy()]
    return worst.found()


def share_of_square(query: int) -> float:
    """Return which share of the image a square covers."""
    return _FIRST_SHARE / 2 ** sum(query > halving for halving in _HALVINGS)


@dataclasses.dataclass(frozen=True)
class _Draws:
    """The random numbers of a query, ``(B, 12)`` words, on a device."""

    words: np.ndarray
    device: torch.device

    def place(self, number: int, room: int) -> Tensor:
        """Return a number from 0 to ``room``, ``(B,)``."""
        drawn = (self.words[:, number] >> np.uint64(11)) / 2.0**53
        return from_numpy((drawn * (room + 1)).astype(np.int64)).to(self.device)

    def signs(self, channels: int) -> Tensor:
        """Return -1 or 1 for every channel, ``(B, channels)`` float32."""
        bits = (self.words[:, 5:6] >> np.arange(channels, dtype=np.uint64)) & np.uint64(1)
        return from_numpy(bits.astype(np.float32)).mul(2).sub(1).to(self.device)

    def turned(self) -> Tensor:
        """Return whether a pattern is turned by a quarter, ``(B,)`` bool."""
        return from_numpy((self.words[:, 4] & np.uint64(1)).astype(bool)).to(self.device)


def _side(query: int, images: Tensor) -> int:
    height, width = images.shape[-2:]
    side = round(math.sqrt(share_of_square(query) * height * width))
    return min(max(side, 1), height, width)


def _stripes(ball: Ball, key: np.ndarray) -> Tensor:
    """Begin with vertical stripes, every column and channel up or down by the whole budget."""
    _, channels, _, width = ball.images.shape
    bits = random_words(key ^ np.uint64(0x5371756172653A31), channels * width) >> np.uint64(63)
    up = from_numpy(bits.astype(bool)).view(-1, channels, 1, width).to(ball.images.device)
    size = ball.budget.size
    return ball.settle(torch.where(up, ball.images + size, ball.images - size))


def _inside(top: Tensor, left: Tensor, side: int, like: Tensor) -> Tensor:
    """Return the mask of a square in every image, ``(B, 1, H, W)`` bool."""
    rows = torch.arange(like.shape[2], device=like.device)
    columns = torch.arange(like.shape[3], device=like.device)
    down = (rows >= top[:, None]) & (rows < top[:, None] + side)
    across = (columns >= left[:, None]) & (columns < left[:, None] + side)
    return (down[:, :, None] & across[:, None, :]).unsqueeze(1)


def _new_square(ball: Ball, best: Tensor, draw: _Draws, side: int) -> Tensor:
    """Move a square of every image, channel by channel, up or down by the whole budget."""
    height, width = best.shape[-2:]
    inside = _inside(draw.place(0, height - side), draw.place(1, width - side), side, best)
    signs = draw.signs(best.shape[1])[:, :, None, None]
    return torch.where(inside, ball.project(ball.images + ball.budget.size * signs), best)


@functools.lru_cache(maxsize=64)
def _bump(side: int) -> Tensor:
    """Return a square pattern whose halves are a hill and a valley, of l2 norm one, ``(side, side)``."""
    half = side // 2
    pattern = torch.zeros(side, side)
    pattern[:half] = _hill(half, side)
    pattern[half:] = -_hill(side - half, side)
    return pattern / pattern.square().sum().sqrt().clamp(min=_TINY)


def _hill(height: int, width: int) -> Tensor:
    """Return a rectangle that falls from its middle to its rim, by the sum of 1 / k² from the distance on."""
    if not height:
        return torch.zeros(0, width)
    reach = max(height // 2 + 1, width // 2 + 1)
    tail = (1 / torch.arange(1, reach + 1, dtype=torch.float64) ** 2).flip(0).cumsum(0).flip(0)
    tail = torch.cat([tail, tail.new_zeros(max(height, width))])
    rows = (torch.arange(height) - height // 2).abs()
    columns = (torch.arange(width) - width // 2).abs()
    hill = tail[torch.maximum(rows[:, None], columns[None, :])].float()
    return hill / hill.square().sum().sqrt()


def _tiles(ball: Ball, key: np.ndarray) -> Tensor:
    """Begin with a grid of five by five patterns, each up or down in every channel."""
    _, channels, height, width = ball.images.shape
    side = max(min(height, width) // 5, 1)
    tops, lefts = range(0, height - side + 1, side), range(0, width - side + 1, side)
    bits = random_words(key ^ np.uint64(0x5371756172653A32), channels * len(tops) * len(lefts)) >> np.uint64(63)
    signs = from_numpy(bits.astype(np.float32)).mul(2).sub(1).to(ball.images.device)
    signs = signs.view(-1, channels, len(tops), len(lefts))
    tile = (_bump(side) if side > 1 else torch.ones(1, 1)).to(ball.images)
    change = torch.zeros_like(ball.images)
    for row, top in enumerate(tops):
        for column, left in enumerate(lefts):
            change[:, :, top : top + side, left : left + side] = signs[:, :, row, column, None, None] * tile
    return _at_full_size(ball, change)


def _moved(ball: Ball, best: Tensor, draw: _Draws, side: int) -> Tensor:
    """Take the change away from one square, and give what it used, and what is left of the budget, to another."""
    height, width = best.shape[-2:]
    channels = best.shape[1]
    side = min(max(side, 3) | 1, height, width)
    change = best - ball.images
    top, left = draw.place(0, height - side), draw.place(1, width - side)
    given = _inside(top, left, side, best)
    taken = _inside(draw.place(2, height - side), draw.place(3, width - side), side, best)
    norm = functools.partial(_norm, ball)
    free = _left(ball, norm(change, dim=(1, 2, 3)))
    here = norm(change * (given | taken), dim=(2, 3))
    window = _window(change, top, left, side)
    bump = _bump(side).to(best)
    pattern = torch.where(draw.turned()[:, None, None], bump.T, bump)[:, None]
    fresh = pattern * draw.signs(channels)[:, :, None, None]
    fresh = fresh / norm(fresh, dim=(2, 3)).clamp(min=_TINY) + window / norm(window, dim=(2, 3)).clamp(min=_TINY)
    fresh = fresh / norm(fresh, dim=(2, 3)).clamp(min=_TINY) * _joined(ball, free / channels, here)
    change = torch.where(taken, torch.zeros_like(change), change)
    _put(change, top, left, fresh)
    return _at_full_size(ball, change)


def _at_full_size(ball: Ball, change: Tensor) -> Tensor:
    """Return images changed in a direction by the whole budget: what [0, 1] cuts off, the other values make up for."""
    power = 1 if ball.budget.norm == "l1" else 2
    length = change.abs()
    room = torch.where(change > 0, 1 - ball.images, ball.images)
    whole = (ball.budget.size * _USED) ** power
    cut = torch.zeros_like(length, dtype=torch.bool)
    factor = torch.zeros_like(length[:, :1, :1, :1])
    for _ in range(_FILLINGS):
        used = torch.where(cut, room**power, 0.0).sum(dim=(1, 2, 3), keepdim=True)
        rest = torch.where(cut, 0.0, length**power).sum(dim=(1, 2, 3), keepdim=True)
        left = ((whole - used).clamp(min=0) / rest.clamp(min=_TINY**power)) ** (1 / power)
        factor = torch.maximum(factor, left)
        before, cut = cut, length * factor > room
        if torch.equal(cut, before):
            break
    return ball.settle(ball.images + change.sign() * torch.minimum(length * factor, room))


def _norm(ball: Ball, change: Tensor, dim: tuple[int, ...]) -> Tensor:
    if ball.budget.norm == "l1":
        return change.abs().sum(dim=dim, keepdim=True)
    return change.square().sum(dim=dim, keepdim=True).sqrt()


def _left(ball: Ball, used: Tensor) -> Tensor:
    """Return what is left of the budget; in l2 of its square."""
    size = ball.budget.size
    return (size - used).clamp(min=0) if ball.budget.norm == "l1" else (size**2 - used.square()).clamp(min=0)


def _joined(ball: Ball, free: Tensor, here: Tensor) -> Tensor:
    return free + here if ball.budget.norm == "l1" else (free + here.square()).sqrt()


def _places(top: Tensor, left: Tensor, side: int) -> tuple[Tensor, Tensor, Tensor]:
    within = torch.arange(side, device=top.device)
    image = torch.arange(len(top), device=top.device)[:, None, None]
    return image, (top[:, None] + within)[:, :, None], (left[:, None] + within)[:, None, :]


def _window(values: Tensor, top: Tensor, left: Tensor, side: int) -> Tensor:
    """Return a square of every image, ``(B, 3, side, side)``."""
    image, rows, columns = _places(top, left, side)
    return values.permute(0, 2, 3, 1)[image, rows, columns].permute(0, 3, 1, 2)


def _put(values: Tensor, top: Tensor, left: Tensor, window: Tensor) -> None:
    image, rows, columns = _places(top, left, window.shape[-1])
    values.permute(0, 2, 3, 1)[image, rows, columns] = window.permute(0, 2, 3, 1)
