"""What the attacks of AutoAttack climb: cross-entropy, and the difference of logits ratio (Croce and Hein 2020).

All take logits ``(B, C)`` and labels ``(B,)``, or ``(B, C)`` booleans where several answers are right, and return
``(B,)``, larger where the network is closer to being wrong.
"""

from __future__ import annotations

from torch import Tensor

from ipvit.perturb.attacks.common import right_and_others

_TINY = 1e-12
LEAST_ANSWERS = {"dlr": 3, "dlr-t": 4}
"""Answers that the two ratios need: the third and the fourth largest logit are in their denominators."""


def dlr_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the largest wrong logit minus the label's, over the largest minus the third largest."""
    right, others = right_and_others(logits, labels)
    ordered = logits.topk(3, dim=1).values
    return (others.amax(dim=1) - right) / (ordered[:, 0] - ordered[:, 2] + _TINY)


def targeted_dlr_loss(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """Return the target's logit minus the label's, over the largest minus the mean of the third and fourth largest."""
    right, _ = right_and_others(logits, labels)
    ordered = logits.topk(4, dim=1).values
    scale = ordered[:, 0] - (ordered[:, 2] + ordered[:, 3]) / 2 + _TINY
    return (_of(logits, targets) - right) / scale


def targeted_ce_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return minus the cross-entropy of the target."""
    return _of(logits, targets) - logits.logsumexp(dim=1)


def target_margin(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """Return the target's logit minus the label's."""
    right, _ = right_and_others(logits, labels)
    return _of(logits, targets) - right


def likeliest_wrong(logits: Tensor, labels: Tensor, most: int) -> Tensor:
    """Return the wrong answers of the largest logits, largest first, ``(B, min(most, wrong answers))`` int64.

    Where images have different numbers of right answers, the last columns of some may hold right ones; nothing is
    gained from aiming at these, and nothing is lost.
    """
    _, others = right_and_others(logits, labels)
    wrong = logits.shape[1] - 1
    return others.topk(min(most, wrong), dim=1).indices


def _of(logits: Tensor, targets: Tensor) -> Tensor:
    return logits.gather(1, targets.unsqueeze(1)).squeeze(1)
