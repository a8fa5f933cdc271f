"""Published choices of a set's images: the 5,000 of ImageNet's validation set that RobustBench measures on."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from ipvit.data.dataset import Dataset, fingerprint
from ipvit.data.subset import Subset
from ipvit.errors import InputError, did_you_mean

ROBUSTBENCH = "robustbench"
SUBSETS = (ROBUSTBENCH,)
"""Names that ``--subset`` takes."""

_NAME = re.compile(r"ILSVRC2012_val_(\d{8})")
_FILE = Path(__file__).with_name("robustbench.txt")


@functools.cache
def robustbench_numbers() -> frozenset[int]:
    """Return the numbers of RobustBench's 5,000 images, as they stand in the names of the files."""
    lines = [line for line in _FILE.read_text("utf-8").splitlines() if not line.startswith("#")]
    return frozenset(int(number) for line in lines for number in line.split())


def is_robustbench(images: Sequence[str]) -> bool:
    """Tell whether images, by their ids, are RobustBench's 5,000, each once."""
    found = [_number(image) for image in images]
    return len(found) == len(robustbench_numbers()) and set(found) == robustbench_numbers()


def named_subset(data: Dataset, name: str) -> Dataset:
    """Return the images of a data set that a publication chose.

    Args:
        data: ImageNet's validation images, or versions of them, under their own names.
        name: ``robustbench``.

    Raises:
        InputError: there is no such choice, or images of it are not there.
    """
    if name not in SUBSETS:
        raise InputError(f"unknown subset {name!r}; known: {', '.join(SUBSETS)}.{did_you_mean(name, SUBSETS)}")
    numbers = [_number(image) for image in data.ids]
    missing = robustbench_numbers() - set(numbers)
    if missing:
        example = f"ILSVRC2012_val_{min(missing):08d}"
        raise InputError(
            f"{data.name} lacks {len(missing):,} of the {len(robustbench_numbers()):,} images of the subset {name}, "
            f"such as {example}: it is a choice of ImageNet's validation images, under their own names"
        )
    chosen = np.array([place for place, number in enumerate(numbers) if number in robustbench_numbers()])
    return NamedSubset(data, chosen, name)


class NamedSubset(Subset):
    """Images that a publication chose: a data set of their own, so that no table mixes them with others.

    Args:
        data: the whole set.
        chosen: positions of the images.
        name: of the choice.
    """

    def __init__(self, data: Dataset, chosen: np.ndarray, name: str) -> None:
        super().__init__(data, chosen)
        scheme, mark, _ = data.fingerprint.rpartition(":")
        self.name = f"{data.name}, subset {name}"
        self.fingerprint = scheme + mark + fingerprint("subset", name, data.fingerprint)
        self.earlier_fingerprint = ""


def _number(image: str) -> int | None:
    found = _NAME.fullmatch(PurePosixPath(image).stem)
    return None if found is None else int(found[1])
