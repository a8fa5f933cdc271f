"""Pure functions from image to image, in pixel space: images ``(B, 3, H, W)`` in [0, 1], before normalisation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipvit.lazy import lazy_names

if TYPE_CHECKING:
    from ipvit.perturb.attack import apgd, autoattack, closest_adversarial, fab_t, fgsm, pgd, square
    from ipvit.perturb.corruptions import corrupt
    from ipvit.perturb.patch import train_patch
    from ipvit.perturb.patchdrop import fill_content, gaussian_blur, n_dropped, patchdrop, random_keep
    from ipvit.perturb.place import shrink_into
    from ipvit.perturb.salience import mass_mask, non_salient_keep, salient_keep
    from ipvit.perturb.seeding import keys
    from ipvit.perturb.shuffle import shuffle, shuffle_order

__all__ = [
    "apgd",
    "autoattack",
    "closest_adversarial",
    "corrupt",
    "fab_t",
    "fgsm",
    "fill_content",
    "gaussian_blur",
    "keys",
    "mass_mask",
    "n_dropped",
    "non_salient_keep",
    "patchdrop",
    "pgd",
    "random_keep",
    "salient_keep",
    "shrink_into",
    "shuffle",
    "shuffle_order",
    "square",
    "train_patch",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        **dict.fromkeys(
            ("apgd", "autoattack", "closest_adversarial", "fab_t", "fgsm", "pgd", "square"), "ipvit.perturb.attack"
        ),
        "corrupt": "ipvit.perturb.corruptions",
        "train_patch": "ipvit.perturb.patch",
        **dict.fromkeys(
            ("fill_content", "gaussian_blur", "n_dropped", "patchdrop", "random_keep"), "ipvit.perturb.patchdrop"
        ),
        "shrink_into": "ipvit.perturb.place",
        **dict.fromkeys(("mass_mask", "non_salient_keep", "salient_keep"), "ipvit.perturb.salience"),
        "keys": "ipvit.perturb.seeding",
        **dict.fromkeys(("shuffle", "shuffle_order"), "ipvit.perturb.shuffle"),
    },
)
