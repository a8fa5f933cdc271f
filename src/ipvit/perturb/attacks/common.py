"""What attacks on single images share: the clean pass, the worst image found, losses and gradients."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from ipvit.perturb.budget import Budget

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
        return Clean(logits_of(network, images))
    return Clean(*logits_and_gradient(network, images, labels))


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


def right_and_others(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest right logit ``(B,)``, and all logits with the right ones at -inf ``(B, C)``."""
    if labels.ndim == 2:
        return logits.masked_fill(~labels, float("-inf")).amax(dim=1), logits.masked_fill(labels, float("-inf"))
    labels = labels.clamp(min=0).unsqueeze(1)
    return logits.gather(1, labels).squeeze(1), logits.scatter(1, labels, float("-inf"))


def is_right(logits: Tensor, labels: Tensor) -> Tensor:
    """Tell whether the label, or one of several, is the class of the largest logit, ``(B,)`` bool.

    Never where a logit is not finite.
    """
    largest = logits.argmax(dim=1)
    right = largest == labels if labels.ndim == 1 else labels.gather(1, largest.unsqueeze(1)).squeeze(1)
    return right & torch.isfinite(logits).all(dim=1)


class Worst:
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
        """Note which rows have a gradient that is zero in every pixel."""
        self.zero_gradient[rows] |= (gradient == 0).flatten(1).all(dim=1)

    def found(self) -> Attacked:
        """Return what was found."""
        return Attacked(self.images, self.logits, self.zero_gradient)


def logits_of(network: Network, images: Tensor) -> Tensor:
    """Return logits without keeping what gradients would need."""
    with torch.no_grad():
        return network(images)


def logits_and_gradient(network: Network, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits and the gradient of :func:`margin_loss` at images."""
    logits, _, gradient = loss_and_gradient(network, images, lambda logits: margin_loss(logits, labels))
    return logits, gradient


def loss_and_gradient(
    network: Network, images: Tensor, loss: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return logits ``(B, C)``, a loss of them ``(B,)`` and its gradient at images.

    Raises:
        ValueError: the network has no gradient.
    """
    images = images.detach().requires_grad_()
    with torch.enable_grad():
        logits = network(images)
        if not logits.requires_grad:
            raise ValueError("the network's logits have no gradient with respect to its images")
        values = loss(logits)
        (gradient,) = torch.autograd.grad(values.sum(), images)
    return logits.detach(), values.detach(), gradient.nan_to_num(0.0)


def refuse_training(network: Network) -> None:
    """Raise ValueError for a network in training mode, whose answers depend on the rest of the batch."""
    if isinstance(network, nn.Module) and any(module.training for module in network.modules()):
        raise ValueError("the network is in training mode, where batches change its answers; call eval() first")
