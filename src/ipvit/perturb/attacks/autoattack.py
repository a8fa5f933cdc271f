"""AutoAttack: an ensemble of attacks whose settings are fixed, one after the other (Croce and Hein 2020, 2021)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal

import numpy as np
from torch import Tensor

from ipvit.perturb.attacks.apgd import Loss, apgd
from ipvit.perturb.attacks.common import Attacked, Clean, Network, Worst, clean_pass, refuse_training
from ipvit.perturb.attacks.fab import fab_t
from ipvit.perturb.attacks.losses import LEAST_ANSWERS
from ipvit.perturb.attacks.square import square
from ipvit.perturb.budget import Budget, Norm
from ipvit.perturb.seeding import random_words

Version = Literal["standard", "rand"]
"""``rand`` is for networks that draw random numbers."""

STEPS, QUERIES, TARGETS, DRAWS = 100, 5000, 9, 20
"""Of AutoAttack. With other numbers it is another ensemble."""
L1_RESTARTS, L1_TARGETS = 5, 5


@dataclasses.dataclass(frozen=True)
class EnsembleStep:
    """One attack of an ensemble.

    Attributes:
        name: ``apgd``, ``apgd-dlr``, ``apgd-t``, ``fab-t`` or ``square``.
        loss: that APGD climbs.
        targets: wrong answers that are aimed at, 0: any.
        restarts: starts for each of them.
    """

    name: str
    loss: Loss = "ce"
    targets: int = 0
    restarts: int = 1


def ensemble_steps(
    norm: Norm, answers: int, *, version: Version = "standard", targets: int = TARGETS
) -> tuple[list[EnsembleStep], list[EnsembleStep]]:
    """Return the attacks of an ensemble, and those that a network has too few answers for.

    Args:
        norm: of the budget.
        answers: of the network.
        version: ``standard``: APGD-CE, targeted APGD-DLR, FAB-T and Square; ``rand``: APGD-CE and APGD-DLR.
        targets: at most so many wrong answers are aimed at.
    """
    aims = min(targets, answers - 1)
    l1 = norm == "l1"
    if version == "rand":
        asked = [EnsembleStep("apgd"), EnsembleStep("apgd-dlr", "dlr")]
    else:
        asked = [
            EnsembleStep("apgd", restarts=L1_RESTARTS if l1 else 1),
            EnsembleStep("apgd-t", "dlr", targets=min(aims, L1_TARGETS) if l1 else aims),
            EnsembleStep("fab-t", targets=aims),
            EnsembleStep("square"),
        ]
    lacking = [step for step in asked if answers < _least(step)]
    return [step for step in asked if step not in lacking], lacking


def autoattack(
    network: Network,
    images: Tensor,
    labels: Tensor,
    budget: Budget,
    key: np.ndarray,
    *,
    version: Version = "standard",
    steps: int = STEPS,
    queries: int = QUERIES,
    targets: int = TARGETS,
    draws: int = DRAWS,
    clean: Clean | None = None,
    on_step: Callable[[str, Attacked], None] = lambda _name, _found: None,
) -> Attacked:
    """Attack with one attack after the other; each goes on with the images that are still right.

    Only with the numbers that are the defaults, and where no step is left out, is this AutoAttack.

    Args:
        network: images to logits; refused in training mode.
        images: ``(B, 3, H, W)`` in [0, 1].
        labels: ``(B,)``, -1 for an image without label, which is not attacked; or ``(B, C)`` booleans.
        budget: how far images may be moved, in linf, l2 or l1.
        key: ``(B,)`` keys, one for each image.
        version: see :func:`ensemble_steps`, which also says what is left out where there are few answers.
        steps: gradient steps of APGD and FAB.
        queries: of Square.
        targets: wrong answers that are aimed at.
        draws: passes that ``rand`` averages.
        clean: from :func:`clean_pass`; one pass serves every budget and attack.
        on_step: called after each attack with its name and what has been found so far.

    Raises:
        ValueError: the network is in training mode, or has no gradient.
    """
    refuse_training(network)
    clean = clean or clean_pass(network, images, labels, gradient=False)
    worst = Worst(images, labels, clean)
    plan, _ = ensemble_steps(budget.norm, clean.logits.shape[1], version=version, targets=targets)
    for step in plan:
        rows = worst.still_right()
        if len(rows) and budget.size > 0:
            some = Clean(clean.logits[rows])
            own = random_words(key[rows.cpu().numpy()], 1)[:, 0] if step.name == "square" else key[rows.cpu().numpy()]
            found = run_step(
                step,
                network,
                images[rows],
                labels[rows],
                budget,
                own,
                steps=steps,
                queries=queries,
                draws=draws if version == "rand" else 1,
                clean=some,
            )
            worst.take(rows, found.images, found.logits)
            worst.zero_gradient[rows] |= found.zero_gradient
        on_step(step.name, worst.found())
    return worst.found()


def run_step(
    step: EnsembleStep,
    network: Network,
    images: Tensor,
    labels: Tensor,
    budget: Budget,
    key: np.ndarray,
    *,
    steps: int = STEPS,
    queries: int = QUERIES,
    draws: int = 1,
    clean: Clean | None = None,
) -> Attacked:
    """Attack with one attack of an ensemble; see :func:`autoattack` for what is given."""
    if step.name == "square":
        return square(network, images, labels, budget, key, queries=queries, clean=clean)
    if step.name == "fab-t":
        return fab_t(network, images, labels, budget, key, steps=steps, targets=step.targets, clean=clean)
    return apgd(
        network,
        images,
        labels,
        budget,
        key,
        loss=step.loss,
        steps=steps,
        restarts=step.restarts,
        targets=step.targets,
        draws=draws,
        clean=clean,
    )


def _least(step: EnsembleStep) -> int:
    if step.name == "square" or step.loss == "ce":
        return 2
    return LEAST_ANSWERS["dlr-t" if step.targets else "dlr"]
