"""Pure functions from image to image, in pixel space: images ``(B, 3, H, W)`` in [0, 1], before normalisation."""

from ipvit.perturb.patchdrop import fill_content, gaussian_blur, n_dropped, patchdrop, random_keep
from ipvit.perturb.place import shrink_into
from ipvit.perturb.salience import mass_mask, non_salient_keep, salient_keep
from ipvit.perturb.seeding import keys
from ipvit.perturb.shuffle import shuffle, shuffle_order

__all__ = [
    "fill_content",
    "gaussian_blur",
    "keys",
    "mass_mask",
    "n_dropped",
    "non_salient_keep",
    "patchdrop",
    "random_keep",
    "salient_keep",
    "shrink_into",
    "shuffle",
    "shuffle_order",
]
