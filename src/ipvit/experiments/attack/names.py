"""What attacks are called, and what each needs. Nothing here needs torch."""

from __future__ import annotations

CLEAN, FGSM, PGD, PATCH, NOISE = "clean", "fgsm", "pgd", "patch", "noise"
"""What is done to the images; ``noise`` is the control of the patch: as large, at the same places, untrained."""

RANDOM = "random"
"""Random noise that uses up the budget: the control of attacks of the user's own."""

CHECK = "check"
"""Two more passes over the unchanged images, which show what would mislead an attack."""

APGD, APGD_DLR, APGD_T, APGD_CE_T, FAB_T, SQUARE = "apgd", "apgd-dlr", "apgd-t", "apgd-ce-t", "fab-t", "square"
LOW_PASS, HIGH_PASS = "low-pass", "high-pass"
AUTOATTACK, RAND, WORST = "autoattack", "rand", "worst"
ENSEMBLE = "ensemble"
"""The attacks of AutoAttack, with other settings than its own or without one of them."""

BANDS = (LOW_PASS, HIGH_PASS)
"""Perturbations of low or of high spatial frequencies, in linf and l2."""

CELLS, VOTE = "cells", "vote"
"""Some cells of a grid are replaced; and PatchDrop as a defence, attacked with and without knowledge of it."""

SINGLE = (APGD, APGD_DLR, APGD_T, APGD_CE_T, FAB_T, SQUARE, *BANDS)
EVALUATIONS = (*SINGLE, AUTOATTACK, RAND)
"""Attacks of AutoAttack's kind, in linf, l2 and l1."""

OURS = (FGSM, PGD, *EVALUATIONS, WORST, CELLS, VOTE, PATCH)
"""Attacks that can be asked for by name."""

NEED_GRADIENTS = frozenset({FGSM, PGD, PATCH, CELLS, VOTE, *EVALUATIONS}) - {SQUARE}

ORDER = (CLEAN, CHECK, FGSM, PGD, *SINGLE, AUTOATTACK, ENSEMBLE, RAND, CELLS, VOTE)
"""Of rows, before attacks of the user's own, their control and patches."""

OWN = "own"
"""The network that a patch was trained on is the one that is attacked."""

PIXEL_SETTINGS = ("steps", "step_size", "restarts", "random_start", "queries", "targets", "draws", "cutoff")
PATCH_SETTINGS = ("shape", "placement", "grid", "scale", "target")
"""Columns of the records that are no axis of a chart: of attacks on every pixel, and of patches."""

CELL_SETTINGS = ("choice", "cells")
VOTE_SETTINGS = ("shown", "answered_by", "share", "votes")
"""Columns of the records of replaced cells, and of PatchDrop as a defence."""

AS_IT_IS, AGAINST_NETWORK, AGAINST_VOTE = "unchanged", "against network", "against vote"
"""What an image is made against that is shown to a network or to its vote."""
BY_NETWORK, BY_VOTE = "network", "vote"
"""What is asked about it."""

CONTENT = ":"
"""In ``training``, what follows tells patches read from files apart by their content; runs are averaged over it."""

CHOSEN = {
    "random": "chosen at random",
    "gradient": "of the largest gradient",
    "greedy": "found by search",
    "attention": "of the largest gradient, painted to draw attention",
}
"""How replaced cells are chosen, in words."""

TITLES = {
    FGSM: "FGSM",
    PGD: "PGD",
    RANDOM: "random noise",
    APGD: "APGD-CE",
    APGD_DLR: "APGD-DLR",
    APGD_T: "APGD-T (DLR)",
    APGD_CE_T: "APGD-T (CE)",
    FAB_T: "FAB-T",
    SQUARE: "Square",
    LOW_PASS: "low frequencies",
    HIGH_PASS: "high frequencies",
    AUTOATTACK: "AutoAttack",
    ENSEMBLE: "the ensemble (not AutoAttack)",
    RAND: "AutoAttack's rand",
    WORST: "the worst of all attacks",
    CELLS: "replaced cells",
    VOTE: "PatchDrop as a defence",
}


def attack_title(attack: str) -> str:
    """Return what an attack is called in sentences and charts."""
    return TITLES.get(attack, attack)
