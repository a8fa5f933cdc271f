"""The corruptions of ImageNet-C, made on the fly (Hendrycks & Dietterich 2019; section 3.4 of the paper).

Each is a function of one image, ``(H, W, 3)`` bytes in RGB of any size, and a severity from 1 to 5; those that draw
random numbers take the stream to draw them from. :func:`corrupt` picks one by name and makes its stream from the
image's key, so that an image's corruption depends on nothing else.

At 224 pixels, the published size, every parameter is the original's. At other sizes lengths in pixels stay (blurs,
displacements, drops), shares of the image follow it (zoom, pixelate), and so do the elastic transform and the side of
the fog's fractal. The published set is stored as JPEG files of quality 85; without :func:`jpeg85` results are those
of another benchmark.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipvit.lazy import lazy_names
from ipvit.perturb.corruptions.names import (
    CORRUPTIONS,
    EXTRA,
    FAMILIES,
    KEYED,
    KEYED_VERSION,
    RANDOM,
    REVISIONS,
    SEVERITIES,
)

if TYPE_CHECKING:
    from ipvit.perturb.corruptions.arrays import random_state
    from ipvit.perturb.corruptions.blur import defocus_blur, gaussian_blur, glass_blur, motion_blur, zoom_blur
    from ipvit.perturb.corruptions.by_name import corrupt
    from ipvit.perturb.corruptions.digital import (
        contrast,
        elastic_transform,
        jpeg85,
        jpeg_compression,
        pixelate,
        saturate,
    )
    from ipvit.perturb.corruptions.noise import gaussian_noise, impulse_noise, shot_noise, speckle_noise
    from ipvit.perturb.corruptions.weather import brightness, fog, frost, snow, spatter

__all__ = [
    "CORRUPTIONS",
    "EXTRA",
    "FAMILIES",
    "KEYED",
    "KEYED_VERSION",
    "RANDOM",
    "REVISIONS",
    "SEVERITIES",
    "brightness",
    "contrast",
    "corrupt",
    "defocus_blur",
    "elastic_transform",
    "fog",
    "frost",
    "gaussian_blur",
    "gaussian_noise",
    "glass_blur",
    "impulse_noise",
    "jpeg85",
    "jpeg_compression",
    "motion_blur",
    "pixelate",
    "random_state",
    "saturate",
    "shot_noise",
    "snow",
    "spatter",
    "speckle_noise",
    "zoom_blur",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "random_state": "ipvit.perturb.corruptions.arrays",
        **dict.fromkeys(
            ("defocus_blur", "gaussian_blur", "glass_blur", "motion_blur", "zoom_blur"),
            "ipvit.perturb.corruptions.blur",
        ),
        "corrupt": "ipvit.perturb.corruptions.by_name",
        **dict.fromkeys(
            ("contrast", "elastic_transform", "jpeg85", "jpeg_compression", "pixelate", "saturate"),
            "ipvit.perturb.corruptions.digital",
        ),
        **dict.fromkeys(
            ("gaussian_noise", "impulse_noise", "shot_noise", "speckle_noise"), "ipvit.perturb.corruptions.noise"
        ),
        **dict.fromkeys(("brightness", "fog", "frost", "snow", "spatter"), "ipvit.perturb.corruptions.weather"),
    },
)
