"""Names of the corruptions, in the order of Hendrycks and Dietterich's paper."""

from __future__ import annotations

from typing import Literal, get_args

Counted = Literal[
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
]
Extra = Literal["speckle_noise", "gaussian_blur", "spatter", "saturate"]
Corruption = Literal[Counted, Extra]

CORRUPTIONS: tuple[Counted, ...] = get_args(Counted)
"""The fifteen that the mean corruption error counts, in the order of their paper."""

EXTRA: tuple[Extra, ...] = get_args(Extra)
"""The four held back for tuning, which the mean corruption error does not count."""

FAMILIES = {
    "noise": CORRUPTIONS[:3],
    "blur": CORRUPTIONS[3:7],
    "weather": CORRUPTIONS[7:11],
    "digital": CORRUPTIONS[11:],
    "extra": EXTRA,
}
"""The fifteen in their four groups, and the four."""

RANDOM: tuple[Corruption, ...] = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "glass_blur",
    "motion_blur",
    "snow",
    "frost",
    "fog",
    "elastic_transform",
    "speckle_noise",
    "spatter",
)
"""Those that draw random numbers; the others give the same picture every time."""

KEYED = tuple(name for name in RANDOM if name != "spatter")
"""Those of them that there are with keyed random numbers, see :mod:`ipvit.perturb.corruptions.keyed`."""

KEYED_VERSION = 1
"""Raised whenever a keyed corruption gives another byte; results then have another name in ``made``."""

SEVERITIES = (1, 2, 3, 4, 5)

REVISIONS = {"motion_blur": 2, "snow": 2}
"""How often these corruptions were put right, counted from 1: they were rounded to bytes, and are cut off now."""
