"""Pure functions from image to image, in pixel space: images ``(B, 3, H, W)`` in [0, 1], before normalisation."""

from ipvit.perturb.patchdrop import fill_content, gaussian_blur, n_dropped, patchdrop, random_keep
from ipvit.perturb.seeding import keys

__all__ = ["fill_content", "gaussian_blur", "keys", "n_dropped", "patchdrop", "random_keep"]
