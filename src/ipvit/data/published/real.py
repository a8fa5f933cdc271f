"""ReaL: labels of ImageNet's validation images that say everything that is to be seen (Beyer et al. 2020)."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

import numpy as np

from ipvit.data.dataset import Dataset
from ipvit.data.published.imagenet_lists import real_labels, synsets
from ipvit.data.published.shift_facts import REAL_SUFFIX
from ipvit.data.subset import Relabelled
from ipvit.errors import InputError

REAL = "real"

_VALIDATION = re.compile(r"ILSVRC2012_val_(\d{8})")


class RealLabels(Relabelled):
    """Images of ImageNet's validation set with ReaL's labels: several for some, none for others.

    Args:
        data: the images, known by their names.

    Raises:
        InputError: an image is not called as ImageNet's validation images are.
    """

    def __init__(self, data: Dataset) -> None:
        labels = real_labels()
        numbers = [_number(name, data.name, len(labels)) for name in data.ids]
        super().__init__(data.name + REAL_SUFFIX, data, np.arange(len(data)), "ReaL")
        self.label_sets = [labels[number] for number in numbers]
        self.labels = np.array([sets[0] if sets else -1 for sets in self.label_sets], dtype=np.int64)
        self.classes = synsets()


def _number(name: str, data: str, most: int) -> int:
    found = _VALIDATION.fullmatch(PurePosixPath(name).stem)
    if found is None or not 1 <= int(found[1]) <= most:
        raise InputError(
            f"ReaL's labels are of ImageNet's validation images, ILSVRC2012_val_00000001 to {most:08d}, and {data} "
            f"holds {name!r}"
        )
    return int(found[1]) - 1
