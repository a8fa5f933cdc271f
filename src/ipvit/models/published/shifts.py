"""timm's accuracies on natural shifts of ImageNet, which this package ships, and on what they rest.

The file beside this module states its source and date in its first lines. It is read when first asked for.
"""

from __future__ import annotations

import dataclasses
import functools
import gzip
from collections.abc import Mapping
from pathlib import Path

from ipvit.data.recognition import IMAGENET_REAL
from ipvit.models.published.tables import rows_of

_SHIFTS = Path(__file__).with_name("timm-natural-shifts.csv.gz")


@dataclasses.dataclass(frozen=True)
class PublishedSet:
    """What is published of a set.

    Attributes:
        title: what the set is called in a sentence.
        clean: column of the clean accuracies, over the same answers.
        shifted: column of the set's own.
        clean_images: of how many images the first are.
        images: of how many labelled images the second are.
        n_answers: how many answers there were.
    """

    title: str
    clean: str
    shifted: str
    clean_images: int
    images: int
    n_answers: int


SETS: Mapping[str, PublishedSet] = {
    "imagenet-v2/matched-frequency": PublishedSet("ImageNet-V2", "clean", "v2", 50_000, 10_000, 1000),
    IMAGENET_REAL: PublishedSet("ReaL", "clean", "real", 50_000, 46_837, 1000),
    "imagenet-sketch": PublishedSet("Sketch", "clean", "sketch", 50_000, 50_889, 1000),
    "imagenet-a": PublishedSet("ImageNet-A", "a_clean", "a", 10_000, 7_500, 200),
    "imagenet-r": PublishedSet("ImageNet-R", "r_clean", "r", 10_000, 30_000, 200),
}
"""Sets on which timm publishes accuracies, by their published name; clean images are ImageNet's validation set."""


@dataclasses.dataclass(frozen=True)
class ShiftResult:
    """Top-1 accuracies of one network of timm's on ImageNet and on natural shifts of it.

    Attributes:
        network: timm's name.
        img_size: height and width of the input, in pixels.
        in1k: by its tag, it saw ImageNet-1k and no other images.
        top1: in percent, by set: ``clean``, ``v2``, ``real``, ``sketch``, ``a``, ``a_clean``, ``r``, ``r_clean``.
    """

    network: str
    img_size: int
    in1k: bool
    top1: Mapping[str, float]


@functools.cache
def timm_shift_results() -> tuple[ShiftResult, ...]:
    """Return timm's results on natural shifts: one line for each network and size of its input."""
    return tuple(
        ShiftResult(
            row.pop("network"),
            int(row.pop("img_size")),
            row.pop("in1k") == "1",
            {name: float(value) for name, value in row.items()},
        )
        for row in rows_of(gzip.decompress(_SHIFTS.read_bytes()).decode())
    )


def timm_shift_result(network: str, img_size: int) -> ShiftResult | None:
    """Return timm's result of a network, by its name with the tag, at a size of input; None where there is none."""
    return next((one for one in timm_shift_results() if (one.network, one.img_size) == (network, img_size)), None)
