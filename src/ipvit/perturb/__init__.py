"""Pure functions from image to image, in pixel space: images ``(B, 3, H, W)`` in [0, 1], before normalisation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ipvit.perturb.attack import fgsm, pgd
from ipvit.perturb.patch import train_patch
from ipvit.perturb.patchdrop import fill_content, gaussian_blur, n_dropped, patchdrop, random_keep
from ipvit.perturb.place import shrink_into
from ipvit.perturb.salience import mass_mask, non_salient_keep, salient_keep
from ipvit.perturb.seeding import keys
from ipvit.perturb.shuffle import shuffle, shuffle_order

if TYPE_CHECKING:
    from ipvit.perturb.corruptions import corrupt

__all__ = [
    "corrupt",
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
    "train_patch",
]


def __getattr__(name: str) -> Any:
    if name == "corrupt":  # OpenCV takes a moment to import
        from ipvit.perturb.corruptions import corrupt

        return corrupt
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
