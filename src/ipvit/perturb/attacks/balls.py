"""The set that an attack searches: all images within a budget and within [0, 1]; steps and projections in it.

An image that is shown to a network is *settled*: the norm of its stored float32 difference to the original, computed
in float64, is at most the budget without tolerance. Other points of a search are only projected.
"""

from __future__ import annotations

import abc

import numpy as np
import torch
from torch import Tensor

from ipvit.perturb.attacks.bounds import linf_bounds, random_starts
from ipvit.perturb.attacks.projections import onto_l1
from ipvit.perturb.budget import LEVELS, Budget
from ipvit.perturb.distance import within
from ipvit.perturb.seeding import generator
from ipvit.perturb.tensors import from_numpy

_MARGIN = 1 - 2.0**-36
"""Share of the budget that is used, so that the order in which a norm is summed up decides nothing."""


class Ball(abc.ABC):
    """Images within a budget around some originals, and within [0, 1].

    Attributes:
        images: ``(B, 3, H, W)``, the originals.
        budget: how far they may be moved.
    """

    def __init__(self, images: Tensor, budget: Budget) -> None:
        self.images, self.budget = images, budget

    def part(self, rows: Tensor) -> Ball:
        """Return the ball around some of the images."""
        return type(self)(self.images[rows], self.budget)

    def resized(self, size: float) -> Ball:
        """Return the ball of another size around the same images."""
        return ball_around(self.images, Budget(self.budget.norm, size))

    @abc.abstractmethod
    def project(self, moved: Tensor) -> Tensor:
        """Return points of the ball near to others, up to rounding."""

    def settle(self, moved: Tensor) -> Tensor:
        """Return points of the ball near to others, within the budget to the last digit."""
        size = self.budget.size * _MARGIN
        return within(self.images, self.project(moved), Budget(self.budget.norm, size))

    @abc.abstractmethod
    def direction(self, gradient: Tensor) -> Tensor:
        """Return the direction of steepest ascent, of length one in the norm; zero where the gradient is."""

    @abc.abstractmethod
    def start(self, key: np.ndarray) -> Tensor:
        """Return random points to start at, one for each key."""


class LinfBall(Ball):
    """Every value moves by at most the budget."""

    def __init__(self, images: Tensor, budget: Budget) -> None:
        super().__init__(images, budget)
        self.low, self.high = linf_bounds(images, min(budget.size * LEVELS, LEVELS))
        if budget.size < 1:  # a size that is no number of 255ths exactly may be passed by a rounding error
            self.low = within(images, self.low, budget)
            self.high = within(images, self.high, budget)

    def part(self, rows: Tensor) -> Ball:
        """Return the ball around some of the images; the bounds are not computed again."""
        some = object.__new__(LinfBall)
        Ball.__init__(some, self.images[rows], self.budget)
        some.low, some.high = self.low[rows], self.high[rows]
        return some

    def project(self, moved: Tensor) -> Tensor:
        """Return the nearest points: the bounds are exact."""
        return moved.clamp(self.low, self.high)

    def settle(self, moved: Tensor) -> Tensor:
        """Return the same as :meth:`project`."""
        return self.project(moved)

    def direction(self, gradient: Tensor) -> Tensor:
        """Return the sign."""
        return gradient.sign()

    def start(self, key: np.ndarray) -> Tensor:
        """Return points drawn evenly from the ball."""
        noise = random_starts(key, tuple(self.images.shape[1:]), self.images.device).to(self.images)
        return self.project(self.images + self.budget.size * noise)


class L2Ball(Ball):
    """The whole image moves by at most the budget."""

    def project(self, moved: Tensor) -> Tensor:
        """Shorten the way from the original to the budget, and clip it to [0, 1]."""
        change = moved - self.images
        length = _spread(_length(change))
        return (self.images + change * (self.budget.size / length.clamp(min=self.budget.size))).clamp(0, 1)

    def direction(self, gradient: Tensor) -> Tensor:
        """Return the gradient, made one long."""
        largest = _spread(gradient.flatten(1).abs().amax(dim=1)).clamp(min=torch.finfo(gradient.dtype).tiny)
        scaled = gradient / largest  # squares of small gradients would vanish
        return scaled / _spread(_length(scaled)).clamp(min=torch.finfo(gradient.dtype).tiny)

    def start(self, key: np.ndarray) -> Tensor:
        """Return points in directions drawn evenly, at the whole budget's distance."""
        return self.settle(self.images + self.budget.size * self.direction(_normal(key, self.images)))


class L1Ball(Ball):
    """The changes of all values of an image sum up to at most the budget."""

    def project(self, moved: Tensor) -> Tensor:
        """Return the nearest points."""
        return onto_l1(self.images, moved, self.budget.size)

    def direction(self, gradient: Tensor) -> Tensor:
        """Return the sign, spread over all values that have a gradient; see :func:`sparse` for fewer."""
        sign = gradient.sign()
        return sign / _spread(sign.abs().flatten(1).sum(dim=1)).clamp(min=1)

    def start(self, key: np.ndarray) -> Tensor:
        """Return the nearest points to normal noise around the originals."""
        return self.settle(self.images + _normal(key, self.images))


_BALLS: dict[str, type[Ball]] = {"linf": LinfBall, "l2": L2Ball, "l1": L1Ball}


def ball_around(images: Tensor, budget: Budget) -> Ball:
    """Return the images within a budget around originals ``(B, 3, H, W)`` in [0, 1]."""
    return _BALLS[budget.norm](images.detach(), budget)


def sparse(gradient: Tensor, share: Tensor) -> Tensor:
    """Return a gradient in which only a share ``(B,)`` of the values, the largest, is left; at least one."""
    sizes = gradient.flatten(1).abs()
    count = (share * sizes.shape[1]).long().clamp(1, sizes.shape[1])
    ordered = sizes.sort(dim=1, descending=True).values
    least = ordered.gather(1, count.unsqueeze(1) - 1)
    return gradient * (sizes >= least).view_as(gradient)


def _length(change: Tensor) -> Tensor:
    return change.flatten(1).square().sum(dim=1).sqrt()


def _spread(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)


def _normal(key: np.ndarray, images: Tensor) -> Tensor:
    shape = tuple(images.shape[1:])
    drawn = np.stack([generator(one).standard_normal(shape, dtype=np.float32) for one in key])
    return from_numpy(drawn).to(images)
