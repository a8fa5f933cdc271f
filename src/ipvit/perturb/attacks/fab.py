"""FAB-T: the closest image of another class, looked for target by target (Croce and Hein 2020)."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from ipvit.perturb.attacks.balls import ball_around
from ipvit.perturb.attacks.common import (
    Attacked,
    Clean,
    Network,
    Worst,
    clean_pass,
    is_right,
    logits_of,
    loss_and_gradient,
    refuse_training,
)
from ipvit.perturb.attacks.losses import likeliest_wrong, target_margin
from ipvit.perturb.attacks.projections import onto_plane
from ipvit.perturb.budget import Budget, Norm
from ipvit.perturb.distance import distances
from ipvit.perturb.seeding import random_words

_MOST_BIAS = 0.1
_OVERSHOOT = 1.05
_BACK = 0.9
_HALVINGS = 3


def fab_t(
    network: Network,
    images: Tensor,
    labels: Tensor,
    budget: Budget,
    key: np.ndarray,
    *,
    steps: int = 100,
    targets: int = 9,
    restarts: int = 1,
    clean: Clean | None = None,
) -> Attacked:
    """Attack with FAB: look for the closest image of every target, until one within the budget is wrong.

    Args:
        network: images to logits; refused in training mode.
        images: ``(B, 3, H, W)`` in [0, 1].
        labels: ``(B,)``, -1 for an image without label, which is not attacked; or ``(B, C)`` booleans.
        budget: how far images may be moved, in linf, l2 or l1.
        key: ``(B,)`` keys, one for each image, from which starts after the first follow.
        steps: projections onto the boundary for each start and target.
        targets: how many of the likeliest wrong answers are aimed at.
        restarts: starts for each target, the first at the image itself.
        clean: from :func:`clean_pass`; one pass serves every budget and attack.

    Raises:
        ValueError: the network is in training mode, or has no gradient.
    """
    if steps < 1 or targets < 1 or restarts < 1:
        raise ValueError(f"FAB needs at least one step, target and restart, not {steps}, {targets} and {restarts}")
    refuse_training(network)
    clean = clean or clean_pass(network, images, labels, gradient=False)
    search = _Search(network, images, labels, budget, Worst(images, labels, clean))
    if budget.size > 0:
        search.run(clean, key, steps, targets, restarts)
    return search.worst.found()


def closest_adversarial(
    network: Network,
    images: Tensor,
    labels: Tensor,
    norm: Norm,
    key: np.ndarray,
    *,
    steps: int = 100,
    targets: int = 9,
    restarts: int = 1,
) -> tuple[Tensor, Tensor]:
    """Return the closest images that FAB finds a network wrong about, and their distances.

    Args:
        network: images to logits; refused in training mode.
        images: ``(B, 3, H, W)`` in [0, 1].
        labels: ``(B,)``, or ``(B, C)`` booleans.
        norm: of the distance.
        key: ``(B,)`` keys.
        steps: see :func:`fab_t`, as the following.
        targets: likeliest wrong answers.
        restarts: starts for each target.

    Returns:
        ``(B, 3, H, W)``, and ``(B,)`` float64: 0 where the network is wrong already, infinite where nothing was found.
    """
    refuse_training(network)
    clean = clean_pass(network, images, labels, gradient=False)
    search = _Search(network, images, labels, Budget(norm, 0.0), Worst(images, labels, clean))
    search.run(clean, key, steps, targets, restarts)
    search.distance[~is_right(clean.logits, labels)] = 0.0
    return search.nearest, search.distance


@dataclasses.dataclass
class _Search:
    """The closest wrong images so far. A budget of size 0 never ends the search."""

    network: Network
    images: Tensor
    labels: Tensor
    budget: Budget
    worst: Worst

    def __post_init__(self) -> None:
        exact = torch.float32 if self.images.device.type == "mps" else torch.float64
        self.nearest = self.images.detach().clone()
        self.distance = torch.full((len(self.images),), float("inf"), dtype=exact, device=self.images.device)

    def run(self, clean: Clean, key: np.ndarray, steps: int, targets: int, restarts: int) -> None:
        """Aim at every target from every start."""
        aims = likeliest_wrong(clean.logits, self.labels, targets)
        for number in range(aims.shape[1] * restarts):
            rows = self.worst.still_right() if self.budget.size else torch.where(is_right(clean.logits, self.labels))[0]
            if not len(rows):
                break
            restart = number % restarts
            own = random_words(key[rows.cpu().numpy()], 1, skip=number)[:, 0]
            self._aim(rows, aims[:, number // restarts], steps, own if restart else None)

    def _aim(self, rows: Tensor, target: Tensor, steps: int, key: np.ndarray | None) -> None:
        x = self.images[rows] if key is None else self._near(rows, key)
        for step in range(steps):
            origin, aim = self.images[rows], target[rows]
            labels = self.labels[rows]

            def margin(logits: Tensor, labels: Tensor = labels, aim: Tensor = aim) -> Tensor:
                return target_margin(logits, labels, aim)

            _, value, slope = loss_and_gradient(self.network, x, margin)
            if step == 0:
                self.worst.note_zero_gradient(rows, slope)
            x = self._projected(origin, x, -value, slope)
            logits = logits_of(self.network, x)
            wrong = ~is_right(logits, labels)
            done = self._note(rows, x, logits, wrong)
            back = origin + _BACK * (x - origin)
            x = torch.where(wrong.view(-1, 1, 1, 1), back, x)
            if bool(done.any()):
                kept = torch.where(~done)[0]
                rows, x = rows[kept], x[kept]
                if not len(rows):
                    return
        self._halve(rows)

    def _projected(self, origin: Tensor, x: Tensor, rise: Tensor, slope: Tensor) -> Tensor:
        """Step over the boundary that the slope predicts, from the point and from the original, and mix the two."""
        norm = self.budget.norm
        near = onto_plane(x, slope, rise, norm)
        from_origin = rise + (slope.double() * (x - origin).double()).flatten(1).sum(dim=1).to(rise)
        home = onto_plane(origin, slope, from_origin, norm)
        zero = torch.zeros_like(near)
        one, other = (distances(zero, change, norm).clamp(min=1e-8) for change in (near, home))
        mix = (one / (one + other)).clamp(max=_MOST_BIAS).to(x).view(-1, 1, 1, 1)
        return ((x + _OVERSHOOT * near) * (1 - mix) + (origin + _OVERSHOOT * home) * mix).clamp(0, 1)

    def _note(self, rows: Tensor, x: Tensor, logits: Tensor, wrong: Tensor) -> Tensor:
        """Keep wrong images that are closer than before; return which are within the budget."""
        away = distances(self.images[rows], x, self.budget.norm).to(self.distance)
        closer = wrong & (away < self.distance[rows])
        self.nearest[rows[closer]] = x[closer]
        self.distance[rows[closer]] = away[closer]
        done = wrong & (away <= self.budget.size)
        self.worst.take(rows[done], x[done], logits[done])
        return done

    def _halve(self, rows: Tensor) -> None:
        """Move the closest wrong images towards the originals, as long as they stay wrong."""
        rows = rows[torch.isfinite(self.distance[rows])]
        high = torch.ones_like(self.distance[rows]).to(self.images)
        low = _BACK * high
        far = self.nearest[rows]
        for _ in range(_HALVINGS):
            if not len(rows):
                return
            middle = (low + high) / 2
            origin = self.images[rows]
            x = (origin + middle.view(-1, 1, 1, 1) * (far - origin)).clamp(0, 1)
            logits = logits_of(self.network, x)
            wrong = ~is_right(logits, self.labels[rows])
            self._note(rows, x, logits, wrong)
            high, low = torch.where(wrong, middle, high), torch.where(wrong, low, middle)

    def _near(self, rows: Tensor, key: np.ndarray) -> Tensor:
        """Return a random point, half as far away as what was found."""
        found = self.distance[rows]
        size = self.budget.size or 0.3
        reach = torch.where(torch.isfinite(found), found, torch.full_like(found, size)).to(self.images) / 2
        ball = ball_around(self.images[rows], Budget(self.budget.norm, size))
        start = ball.start(key)
        return (self.images[rows] + (reach / size).view(-1, 1, 1, 1) * (start - self.images[rows])).clamp(0, 1)
