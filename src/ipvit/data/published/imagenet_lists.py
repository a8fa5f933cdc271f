"""ImageNet's classes, the 200 of ImageNet-A and ImageNet-R, and ReaL's labels: as timm carries them."""

from __future__ import annotations

import functools
import importlib.resources
import json


@functools.cache
def synsets(which: str = "") -> tuple[str, ...]:
    """Return WordNet ids in the order of networks' outputs: ImageNet-1k's 1,000, or the 200 of ``a`` or ``r``.

    The 200 are those of Hendrycks et al. 2021 (ImageNet-A: "Natural Adversarial Examples"; ImageNet-R: "The Many Faces
    of Robustness").
    """
    return tuple(_read(f"imagenet_{which}_synsets.txt" if which else "imagenet_synsets.txt").split())


@functools.cache
def real_labels() -> tuple[tuple[int, ...], ...]:
    """Return the right outputs of each of ImageNet's 50,000 validation images by its number, from 0; none for some.

    Beyer et al. 2020, "Are we done with ImageNet?".
    """
    return tuple(tuple(labels) for labels in json.loads(_read("imagenet_real_labels.json")))


def _read(name: str) -> str:
    return (importlib.resources.files("timm.data") / "_info" / name).read_text("utf-8")
