"""Attacks on single images, each by its name; every one is a file of :mod:`ipvit.perturb.attacks`.

All take any callable from images in [0, 1] to logits; a network normalises inside, so a step is measured in pixel
values. FGSM and PGD (section 3.4, figure 13) climb ``logsumexp`` of the other classes' logits minus the label's.
Cross-entropy is an increasing function of it, so the sign of every gradient is that of cross-entropy; but it does not
vanish where the network is so sure that the label's probability rounds to one, which would look like robustness.
"""

from __future__ import annotations

from ipvit.perturb.attacks.apgd import apgd
from ipvit.perturb.attacks.autoattack import EnsembleStep, autoattack, ensemble_steps
from ipvit.perturb.attacks.band import band_limited
from ipvit.perturb.attacks.bounds import linf_bounds, random_starts
from ipvit.perturb.attacks.cells import attack_cells
from ipvit.perturb.attacks.common import (
    Attacked,
    AttackFunction,
    Clean,
    Network,
    clean_pass,
    is_right,
    margin_loss,
    refuse_training,
)
from ipvit.perturb.attacks.defence import PatchDropVote, attack_vote
from ipvit.perturb.attacks.fab import closest_adversarial, fab_t
from ipvit.perturb.attacks.fgsm import fgsm
from ipvit.perturb.attacks.losses import dlr_loss, likeliest_wrong, targeted_dlr_loss
from ipvit.perturb.attacks.own import run_attack
from ipvit.perturb.attacks.pgd import pgd
from ipvit.perturb.attacks.square import square

__all__ = [
    "AttackFunction",
    "Attacked",
    "Clean",
    "EnsembleStep",
    "Network",
    "PatchDropVote",
    "apgd",
    "attack_cells",
    "attack_vote",
    "autoattack",
    "band_limited",
    "clean_pass",
    "closest_adversarial",
    "dlr_loss",
    "ensemble_steps",
    "fab_t",
    "fgsm",
    "is_right",
    "likeliest_wrong",
    "linf_bounds",
    "margin_loss",
    "pgd",
    "random_starts",
    "refuse_training",
    "run_attack",
    "square",
    "targeted_dlr_loss",
]
