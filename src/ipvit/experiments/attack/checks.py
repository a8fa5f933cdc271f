"""What would mislead an attack, measured on the unchanged images: what AutoAttack warns of, with numbers."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ipvit.experiments.base import Batch
from ipvit.models.model import Model
from ipvit.perturb.attack import Clean
from ipvit.perturb.attacks.common import loss_and_gradient
from ipvit.perturb.budget import LEVELS, Budget
from ipvit.perturb.distance import random_noise
from ipvit.perturb.seeding import keys

NUDGE = 1 / 250
"""Grey levels by which every value is moved to see whether logits change."""
_ONE = 1e-3


def checked(model: Model, batch: Batch, clean: Clean) -> dict[str, Tensor]:
    """Return the columns of the check.

    Args:
        model: the network.
        batch: of unchanged images.
        clean: what the network made of them in the clean pass.

    Returns:
        ``repeat_difference``: the largest difference of a logit between two passes. ``probabilities``: the outputs are
        not negative and sum up to one. ``same_logits``: share of the logits that stay exactly the same when every value
        moves by a 250th of a grey level. ``zero_ce``: the gradient of cross-entropy is zero everywhere (false where
        the network has no gradients).
    """
    with torch.no_grad():
        again = model(batch.images)
        key = keys(batch.ids, batch.seed, "attack", "nudge")
        nudged = model(random_noise(batch.images, Budget("linf", NUDGE / LEVELS), key))
    logits = clean.logits
    like_one = (logits.sum(dim=1) - 1).abs() < _ONE
    return {
        "repeat_difference": (again - logits).abs().amax(dim=1),
        "probabilities": like_one & (logits >= 0).all(dim=1),
        "same_logits": (nudged == logits).float().mean(dim=1),
        "zero_ce": _zero_ce(model, batch),
    }


def _zero_ce(model: Model, batch: Batch) -> Tensor:
    if not model.can("gradients"):
        return torch.zeros(len(batch), dtype=torch.bool, device=batch.images.device)

    def cross_entropy(logits: Tensor) -> Tensor:
        if batch.labels.ndim == 1:
            return F.cross_entropy(logits, batch.labels.clamp(min=0), reduction="none")
        return -(logits.log_softmax(dim=1).masked_fill(~batch.labels, float("-inf"))).logsumexp(dim=1)

    _, _, gradient = loss_and_gradient(model, batch.images, cross_entropy)
    return (gradient == 0).flatten(1).all(dim=1)
