"""FGSM and PGD within an l-infinity ball, and any other attack: on single images (section 3.4, figure 13).

All take any callable from images in [0, 1] to logits; a network normalises inside, so a step is measured in pixel
values. The loss that is climbed is ``logsumexp`` of the other classes' logits minus the label's. Cross-entropy is an
increasing function of it, so the sign of every gradient is that of cross-entropy; but it does not vanish where the
network is so sure that the label's probability rounds to one, which would look like robustness.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from ipvit.perturb.budget import LEVELS, Budget
from ipvit.perturb.seeding import generator
from ipvit.perturb.tensors import from_numpy

Network = Callable[[Tensor], Tensor]
"""Images ``(B, 3, H, W)`` in [0, 1] to logits ``(B, C)``."""

AttackFunction = Callable[[Network, Tensor, Tensor, Budget, np.ndarray], Tensor]
"""An attack: network, images ``(B, 3, H, W)`` in [0, 1] that the network takes for what they are, their labels
``(B,)`` int64, the budget, and a key ``(B,)`` uint64 for each image, the same whatever the batch -> images to show."""


@dataclasses.dataclass(frozen=True)
class Clean:
    """What a network makes of the unchanged images; shared by all attacks on them.

    Attributes:
        logits: ``(B, C)``.
        gradient: ``(B, 3, H, W)`` of the loss at the images, or None where it was not asked for.
    """

    logits: Tensor
    gradient: Tensor | None = None


@dataclasses.dataclass(frozen=True)
class Attacked:
    """The worst images that an attack found.

    An image that the network already gets wrong is left as it is: once wrong is wrong.

    Attributes:
        images: ``(B, 3, H, W)``: the first that was taken for something else, otherwise the one of the highest loss.
        logits: ``(B, C)`` of the network for them.
        zero_gradient: ``(B,)`` the gradient was zero everywhere although the image was to be attacked: the attack
            was blind, and its failure says nothing.
    """

    images: Tensor
    logits: Tensor
    zero_gradient: Tensor


def linf_bounds(images: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """Return the smallest and the largest pixel values within ``epsilon / 255`` of images and within [0, 1].

    The bounds are rounded inwards, so the true difference of an image between them to the original is at most
    ``epsilon / 255``, not that plus a rounding error.

    Args:
        images: ``(B, 3, H, W)`` in [0, 1].
        epsilon: radius in 255ths.
    """
    if not 0 <= epsilon <= LEVELS:
        raise ValueError(f"epsilon is a number of 255ths, from 0 to 255, not {epsilon!r}")
    radius = epsilon / LEVELS
    exact = images.detach().to("cpu" if images.device.type == "mps" else images.device, torch.float64)
    low, high = ((exact + sign * radius).clamp(0, 1).to(images.dtype) for sign in (-1, 1))
    for _ in range(2):  # one step repairs the rounding to float32, a second one that of the sum itself
        low = torch.where(exact - low > radius, torch.nextafter(low, torch.ones_like(low)), low)
        high = torch.where(high - exact > radius, torch.nextafter(high, torch.zeros_like(high)), high)
    return low.to(images.device), high.to(images.device)


def clean_pass(network: Network, images: Tensor, labels: Tensor, *, gradient: bool = True) -> Clean:
    """Run a network on unchanged images, once for all attacks on them.

    Args:
        network: images to logits; refused in training mode.
        images: ``(B, 3, H, W)`` in [0, 1].
        labels: ``(B,)``; -1 for an image without label, which is not attacked.
        gradient: also return the gradient, which FGSM and a PGD without random start begin with.

    Raises:
        ValueError: the network is in training mode, or has no gradient.
    """
    refuse_training(network)
    if not gradient:
        return Clean(_logits(network, images))
    return Clean(*_logits_and_gradient(network, images, labels))


def fgsm(network: Network, images: Tensor, labels: Tensor, epsilon: float, *, clean: Clean | None = None) -> Attacked:
    """Attack with one step of size ``epsilon / 255`` along the sign of the gradient (Goodfellow et al. 2015).

    Args:
        network: images to logits; refused in training mode.
        images: ``(B, 3, H, W)`` in [0, 1].
        labels: ``(B,)``; -1 for an image without label, which is not attacked.
        epsilon: radius in 255ths.
        clean: from :func:`clean_pass` with gradient; one pass serves every epsilon.

    Raises:
        ValueError: the network is in training mode, or has no gradient.
    """
    refuse_training(network)
    clean = clean if clean is not None and clean.gradient is not None else clean_pass(network, images, labels)
    assert clean.gradient is not None
    worst = _Worst(images, labels, clean)
    rows = worst.still_right()
    if len(rows) and epsilon > 0:
        low, high = linf_bounds(images[rows], epsilon)
        gradient = clean.gradient[rows]
        worst.note_zero_gradient(rows, gradient)
        moved = (images[rows] + epsilon / LEVELS * gradient.sign()).clamp(low, high)
        worst.take(rows, moved, _logits(network, moved), always=True)
    return worst.found()


def pgd(
    network: Network,
    images: Tensor,
    labels: Tensor,
    epsilon: float,
    *,
    steps: int = 5,
    step_size: float = 0.5,
    restarts: int = 1,
    starts: Callable[[int], Tensor] | None = None,
    clean: Clean | None = None,
) -> Attacked:
    """Attack with projected gradient steps (Madry et al. 2018); only images that are still right go on.

    A step is a fixed share of epsilon and the first restarts are the same whatever their number, so more steps or
    restarts try all that fewer would have tried: they never leave more images right.

    Args:
        network: images to logits; refused in training mode.
        images: ``(B, 3, H, W)`` in [0, 1].
        labels: ``(B,)``; -1 for an image without label, which is not attacked.
        epsilon: radius in 255ths.
        steps: gradient steps per restart.
        step_size: length of a step as a share of epsilon.
        restarts: how often an image that is still right is attacked from another start.
        starts: for a restart's number, where to start in the ball: ``(B, 3, H, W)`` in [-1, 1] (see
            :func:`random_starts`); None starts at the images themselves.
        clean: from :func:`clean_pass`; one pass serves every epsilon.

    Raises:
        ValueError: the network is in training mode, or has no gradient; restarts without random starts.
    """
    if steps < 1 or restarts < 1:
        raise ValueError(f"PGD needs at least one step and one restart, not {steps} and {restarts}")
    if restarts > 1 and starts is None:
        raise ValueError("restarts without a random start would all be the same")
    refuse_training(network)
    clean = clean or clean_pass(network, images, labels, gradient=starts is None)
    worst = _Worst(images, labels, clean)
    if epsilon == 0:
        return worst.found()
    radius = epsilon / LEVELS
    for restart in range(restarts):
        rows = worst.still_right()
        if not len(rows):
            break
        low, high = linf_bounds(images[rows], epsilon)
        x, gradient = images[rows], None
        if starts is not None:
            x = (x + radius * starts(restart)[rows].to(x)).clamp(low, high)
        elif clean.gradient is not None:
            gradient = clean.gradient[rows]
        for step in range(steps):
            if gradient is None:
                logits, gradient = _logits_and_gradient(network, x, labels[rows])
                kept = worst.take(rows, x, logits)
                rows, x, low, high, gradient = (values[kept] for values in (rows, x, low, high, gradient))
                if not len(rows):
                    break
            if step == 0:
                worst.note_zero_gradient(rows, gradient)
            x = (x + step_size * radius * gradient.sign()).clamp(low, high)
            gradient = None
        if len(rows):
            worst.take(rows, x, _logits(network, x))
    return worst.found()


def run_attack(
    attack: AttackFunction,
    network: Network,
    images: Tensor,
    labels: Tensor,
    budget: Budget,
    key: np.ndarray,
    *,
    clean: Clean | None = None,
) -> Attacked:
    """Attack with any function; it is given the images that are right, as FGSM and PGD are.

    Args:
        attack: makes the images that are shown to the network; that they are within the budget is not checked.
        network: images to logits; refused in training mode.
        images: ``(B, 3, H, W)`` in [0, 1].
        labels: ``(B,)``; -1 for an image without label, which is not attacked.
        budget: how far images may be moved.
        key: ``(B,)`` keys, one for each image.
        clean: from :func:`clean_pass`; one pass serves every budget.

    Raises:
        ValueError: the network is in training mode.
    """
    refuse_training(network)
    clean = clean or clean_pass(network, images, labels, gradient=False)
    worst = _Worst(images, labels, clean)
    rows = worst.still_right()
    if len(rows) and budget.size > 0:
        with torch.enable_grad():
            moved = attack(network, images[rows], labels[rows], budget, key[rows.cpu().numpy()]).detach()
        worst.take(rows, moved, _logits(network, moved), always=True)
    return worst.found()


def random_starts(key: np.ndarray, size: tuple[int, ...]) -> Tensor:
    """Return uniform noise in [-1, 1], ``(B, *size)`` float32: every key's own, whatever the others."""
    noise = np.stack([generator(one).random(size, dtype=np.float32) for one in key])
    return from_numpy(noise).mul_(2).sub_(1)


def margin_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return ``logsumexp`` of the other classes' logits minus the label's, ``(B,)``; of several labels, theirs.

    Cross-entropy, or minus the logarithm of the labels' joint probability, is ``log(1 + exp(excess))``.
    """
    if labels.ndim == 2:
        others, right = (logits.masked_fill(mask, float("-inf")) for mask in (labels, ~labels))
        return others.logsumexp(dim=1) - right.logsumexp(dim=1)
    labels = labels.clamp(min=0).unsqueeze(1)
    others = logits.scatter(1, labels, float("-inf"))
    return others.logsumexp(dim=1) - logits.gather(1, labels).squeeze(1)


def is_right(logits: Tensor, labels: Tensor) -> Tensor:
    """Tell whether the label, or one of several, is the class of the largest logit, ``(B,)`` bool.

    Never where a logit is not finite.
    """
    largest = logits.argmax(dim=1)
    right = largest == labels if labels.ndim == 1 else labels.gather(1, largest.unsqueeze(1)).squeeze(1)
    return right & torch.isfinite(logits).all(dim=1)


class _Worst:
    """The worst image found so far for every image of a batch."""

    def __init__(self, images: Tensor, labels: Tensor, clean: Clean) -> None:
        self.labels = labels
        self.images, self.logits = images.detach().clone(), clean.logits.detach().clone()
        self.zero_gradient = torch.zeros(len(images), dtype=torch.bool, device=images.device)

    def still_right(self) -> Tensor:
        """Return the numbers of the images that are to be attacked further."""
        return torch.where(is_right(self.logits, self.labels))[0]

    def take(self, rows: Tensor, images: Tensor, logits: Tensor, *, always: bool = False) -> Tensor:
        """Keep what is wrong or has a higher loss than before; return which of the rows are still right."""
        labels = self.labels[rows]
        right = is_right(logits, labels)
        better = ~right | always | (margin_loss(logits, labels) > margin_loss(self.logits[rows], labels))
        self.images[rows[better]] = images[better]
        self.logits[rows[better]] = logits[better]
        return right

    def note_zero_gradient(self, rows: Tensor, gradient: Tensor) -> None:
        self.zero_gradient[rows] |= (gradient == 0).flatten(1).all(dim=1)

    def found(self) -> Attacked:
        return Attacked(self.images, self.logits, self.zero_gradient)


def _logits(network: Network, images: Tensor) -> Tensor:
    with torch.no_grad():
        return network(images)


def _logits_and_gradient(network: Network, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    images = images.detach().requires_grad_()
    with torch.enable_grad():
        logits = network(images)
        if not logits.requires_grad:
            raise ValueError("the network's logits have no gradient with respect to its images")
        (gradient,) = torch.autograd.grad(margin_loss(logits, labels).sum(), images)
    return logits.detach(), gradient.nan_to_num(0.0)


def refuse_training(network: Network) -> None:
    """Raise ValueError for a network in training mode, whose answers depend on the rest of the batch."""
    if isinstance(network, nn.Module) and any(module.training for module in network.modules()):
        raise ValueError("the network is in training mode, where batches change its answers; call eval() first")
